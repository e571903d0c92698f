"""Opens SOURCE: a folder, a manifest file, or JSONL on stdin, as one stream of entries."""

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Final, Protocol

from pipeline.errors import UsageError
from pipeline.limits import Limits
from pipeline.manifest.entry import Entry
from pipeline.manifest.lines import STDIN, lines, reader
from pipeline.manifest.paths import Confinement
from pipeline.manifest.row import RowReader
from pipeline.manifest.rows import RawRow, csv_rows, jsonl_rows, parquet_rows
from pipeline.media.identify import type_at
from pipeline.media.sniff import MEDIA_SUFFIXES
from pipeline.records import Rejected
from pipeline.spec import SourceSpec

JSONL_SUFFIXES: Final = frozenset({".jsonl", ".ndjson"})
MANIFEST_SUFFIXES: Final = JSONL_SUFFIXES | {".csv", ".parquet"}

Entries = Generator[Entry | Rejected | None]
"""What SOURCE holds, in order; None while a pipe has nothing yet."""


class Source(Protocol):
    """A SOURCE that can be read."""

    @property
    def skipped(self) -> dict[str, int]:
        """Files passed over so far, by suffix."""
        ...

    def entries(self) -> Entries:
        """Read it once, in a worker thread."""
        ...


def most_files(limits: Limits) -> int:
    """More media than this can't be in one request, whatever they are."""
    return limits.max_images + limits.max_videos


class ManifestSource:
    """A manifest. ``path`` is None for stdin; ``spool`` is then a descriptor to read instead, where there is one.

    Raises ``UsageError`` when built, where the file can't be a manifest or can't be read.
    """

    def __init__(
        self,
        spec: SourceSpec,
        limits: Limits,
        *,
        warn: Callable[[str], None],
        check_cancelled: Callable[[], None],
        spool: int | None = None,
    ) -> None:
        self.skipped: dict[str, int] = {}
        self._path = spec.path
        self._spool = spool
        self._check_cancelled = check_cancelled
        if spec.path is not None:
            check_manifest(spec.path)
        root = Path() if spec.path is None else spec.path.parent
        most = most_files(limits)
        confinement = Confinement(root, spec.media_roots, most_files=most, check_cancelled=check_cancelled)
        self._rows = RowReader(confinement, most_files=most, warn=warn)

    def entries(self) -> Entries:
        position = 0
        for raw in self._raw_rows():
            if raw is None:
                yield None
                continue
            yield self._rows.entry(raw, position)
            position += 1

    def _raw_rows(self) -> Iterator[RawRow | None]:
        if self._path is None:
            yield from self._text_rows(STDIN if self._spool is None else self._spool, ".jsonl")
        elif self._path.suffix.lower() == ".parquet":
            yield from parquet_rows(self._path, self._check_cancelled)
        else:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield from self._text_rows(descriptor, self._path.suffix.lower())
            finally:
                os.close(descriptor)

    def _text_rows(self, descriptor: int, suffix: str) -> Iterator[RawRow | None]:
        stream = lines(reader(descriptor, self._check_cancelled))
        try:
            yield from csv_rows(stream) if suffix == ".csv" else jsonl_rows(stream)
        except OSError as error:
            raise UsageError(f"the manifest can't be read: {error.strerror}") from None


def check_manifest(path: Path) -> None:
    """Raise ``UsageError`` unless ``path`` looks like a manifest that can be read."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from None
    suffix = path.suffix.lower()
    if suffix in MANIFEST_SUFFIXES:
        return
    if suffix in MEDIA_SUFFIXES or type_at(str(path.resolve())) is not None:
        raise UsageError(f"{path} is one media file: put it in a folder or a manifest")
    raise UsageError(f"{path} is no manifest: its name must end in .jsonl, .csv or .parquet")
