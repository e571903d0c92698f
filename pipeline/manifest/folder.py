"""Walks a folder SOURCE, sorted one directory at a time: files first, then the folders below."""

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Final

from pipeline.clock import Clock
from pipeline.errors import UsageError
from pipeline.manifest.entry import Entry, MediaRef, failed
from pipeline.manifest.globs import matches, natural_key
from pipeline.media.identify import type_at
from pipeline.media.sniff import MEDIA_SUFFIXES
from pipeline.records import Rejected
from pipeline.spec import SourceSpec

FOLDER_SUFFIX: Final = "/"
"""Stands for folders among the suffixes passed over."""
_OTHER_SUFFIXES: Final = "(other)"
_COUNTED_SUFFIXES: Final = 200


class FolderSource:
    """The media below a folder; the key of each is its path. Symlinks and hidden names are passed over.

    Raises ``UsageError`` when built, where the folder can't be read.
    """

    def __init__(
        self, root: Path, spec: SourceSpec, *, run_folder: Path, clock: Clock, check_cancelled: Callable[[], None]
    ) -> None:
        self.skipped: Counter[str] = Counter()
        self._root = os.path.realpath(root)
        self._run_folder = os.path.realpath(run_folder)
        self._spec = spec
        self._written_before = clock.now().timestamp() - spec.min_age_seconds
        self._check_cancelled = check_cancelled
        try:
            with os.scandir(self._root):
                pass
        except OSError as error:
            raise UsageError(f"{root} can't be read: {error.strerror}") from None

    def entries(self) -> Generator[Entry | Rejected | None]:
        """One entry a file, or a folder; a folder that can't be read is a failed one."""
        position = 0
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                files, below = self._list(folder)
            except OSError as error:
                failure = failed("missing_file", f"{printable(folder)}: can't be read ({error.strerror})").failure
                yield Entry(key=printable(folder), position=position).reject(failure)
                position += 1
                continue
            folders.extend(reversed(below))
            for entry in self._entries(folder, files, position):
                yield entry
                position += 1

    def _entries(self, folder: str, files: Sequence[str], position: int) -> Iterator[Entry | Rejected]:
        media = (path for path in files if self._is_media(path))
        if self._spec.group == "file":
            for offset, path in enumerate(media):
                yield self._entry(path, [path], position + offset)
        elif found := sorted(media, key=natural_key):
            yield self._entry(folder or ".", found, position)

    def _entry(self, path: str, files: Sequence[str], position: int) -> Entry | Rejected:
        shown = printable(path)
        refs = tuple(MediaRef(path=printable(file), location=f"{self._root}/{file}") for file in files)
        entry = Entry(key=shown, position=position, path=shown, media=refs)
        if shown != path or any(ref.path != file for ref, file in zip(refs, files, strict=True)):
            return entry.reject(failed("unsupported_source", f"{shown}: a name is not valid UTF-8; rename it").failure)
        return entry

    def _list(self, folder: str) -> tuple[list[str], list[str]]:
        """The files of a folder that are asked for, and the folders below it, each sorted by name."""
        files: list[str] = []
        below: list[str] = []
        with os.scandir(f"{self._root}/{folder}" if folder else self._root) as listing:
            for entry in sorted(listing, key=lambda entry: entry.name):
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if self._is_passed_over(entry):
                        self._skip(FOLDER_SUFFIX)
                    elif not self._is_excluded(path):
                        below.append(path)
                elif self._is_passed_over(entry):
                    self._skip(_suffix(path))
                elif self._is_asked_for(entry, path):
                    files.append(path)
        return files, below

    def _is_passed_over(self, entry: os.DirEntry[str]) -> bool:
        return entry.name.startswith(".") or entry.is_symlink() or entry.path == self._run_folder

    def _is_excluded(self, path: str) -> bool:
        return any(matches(path, pattern) for pattern in self._spec.exclude)

    def _is_asked_for(self, entry: os.DirEntry[str], path: str) -> bool:
        if self._is_excluded(path):
            return False
        if self._spec.include and not any(matches(path, pattern) for pattern in self._spec.include):
            return False
        if self._spec.min_age_seconds > 0 and self._is_too_young(entry):
            self._skip(_suffix(path))
            return False
        return True

    def _is_too_young(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.stat(follow_symlinks=False).st_mtime > self._written_before
        except OSError:
            return False  # it has just vanished, which opening it will tell

    def _is_media(self, path: str) -> bool:
        """By suffix or by bytes; what is neither is counted."""
        self._check_cancelled()
        if _suffix(path) in MEDIA_SUFFIXES or type_at(f"{self._root}/{path}") is not None:
            return True
        self._skip(_suffix(path))
        return False

    def _skip(self, suffix: str) -> None:
        known = suffix in self.skipped or len(self.skipped) < _COUNTED_SUFFIXES
        self.skipped[printable(suffix) if known else _OTHER_SUFFIXES] += 1


def printable(path: str) -> str:
    """``path`` with bytes that are not UTF-8 written as ``\\xNN``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 - a string for each of very many files
