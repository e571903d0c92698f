"""Walks a folder SOURCE, sorted one directory at a time: files first, then the folders below."""

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from pipeline.clock import Clock
from pipeline.errors import UsageError
from pipeline.manifest.entry import SHOWN_PATHS, Entry, MediaRef, failed, not_utf8, shown_path
from pipeline.manifest.globs import matches, natural_key
from pipeline.media.identify import type_at
from pipeline.media.sniff import MEDIA_SUFFIXES
from pipeline.records import Rejected
from pipeline.spec import SourceSpec

FOLDER_SUFFIX: Final = "/"
"""Stands for folders among the suffixes passed over."""
_OTHER_SUFFIXES: Final = "(other)"
_COUNTED_SUFFIXES: Final = 200
_LISTED_AT_ONCE: Final = 1024
"""Names of a folder between two looks at whether to go on."""


class FolderSource:
    """The media below a folder; the key of each is its path. Symlinks and hidden names are passed over.

    Of a folder only the names are held, for it may have a million. ``most_files`` is how many media one item may have
    at all. Raises ``UsageError`` when built, where the folder can't be read.
    """

    def __init__(
        self,
        root: Path,
        spec: SourceSpec,
        *,
        run_folder: Path,
        clock: Clock,
        most_files: int,
        check_cancelled: Callable[[], None],
    ) -> None:
        self.skipped: Counter[str] = Counter()
        self._root = os.path.realpath(root)
        self._run_folder = os.path.realpath(run_folder)
        self._spec = spec
        self._takes_all = not (spec.include or spec.exclude or spec.min_age_seconds > 0)
        self._most_files = most_files
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
                failure = failed("missing_file", f"{shown_path(folder)}: can't be read ({error.strerror})").failure
                yield Entry(key=shown_path(folder), position=position).reject(failure)
                position += 1
                continue
            prefix = f"{folder}/" if folder else ""
            folders.extend(prefix + name for name in below)
            media = (path for name in _popped(files) if self._is_media(path := prefix + name))
            for entry in self._entries(folder, media, position):
                yield entry
                position += 1

    def _entries(self, folder: str, media: Iterator[str], position: int) -> Iterator[Entry | Rejected]:
        if self._spec.group == "file":
            for at, path in enumerate(media, position):
                yield self._entry(path, at, (self._ref(path),))
        elif found := list(islice(media, self._most_files + 1)):
            path = folder or "."
            if more := sum(1 for _ in media):
                yield self._too_many(path, position, found, len(found) + more)
            else:
                yield self._entry(path, position, map(self._ref, sorted(found, key=natural_key)))

    def _ref(self, path: str) -> MediaRef:
        return MediaRef(path=shown_path(path), location=f"{self._root}/{path}")

    def _entry(self, path: str, position: int, media: Iterable[MediaRef]) -> Entry | Rejected:
        shown = shown_path(path)
        entry = Entry(key=shown, position=position, path=shown, media=tuple(media))
        start = len(self._root) + 1
        if shown == path and all(ref.location[start:] == ref.path for ref in entry.media):
            return entry
        return entry.reject(not_utf8(path).failure)

    def _too_many(self, path: str, position: int, first: Sequence[str], count: int) -> Rejected:
        shown = tuple(map(self._ref, first[:SHOWN_PATHS]))
        entry = Entry(key=shown_path(path), position=position, media=shown)
        return entry.reject(failed("too_many_images", f"{count:,} media in one item").failure)

    def _list(self, folder: str) -> tuple[list[str], list[str]]:
        """Names of the files that are asked for and of the folders below, each a stack with the first on top."""
        files: list[str] = []
        young: list[str] = []
        below: list[str] = []
        prefix = f"{folder}/" if folder else ""
        with os.scandir(f"{self._root}/{folder}" if folder else self._root) as listing:
            for number, entry in enumerate(listing):
                if number % _LISTED_AT_ONCE == 0:
                    self._check_cancelled()
                is_folder = entry.is_dir(follow_symlinks=False)
                if self._is_passed_over(entry):
                    self._skip(FOLDER_SUFFIX if is_folder else _suffix(entry.name))
                elif is_folder:
                    if not self._is_excluded(prefix + entry.name):
                        below.append(entry.name)
                elif self._takes_all or self._is_asked_for(prefix + entry.name):
                    (young if self._is_too_young(entry) else files).append(entry.name)
        if self._spec.group == "folder" and any(self._may_be_media(prefix + name) for name in young):
            young, files = young + files, []  # a series of which a part is missing would be another one tomorrow
        for name in young:
            self._skip(_suffix(name))
        files.sort(reverse=True)
        below.sort(reverse=True)
        return files, below

    def _is_passed_over(self, entry: os.DirEntry[str]) -> bool:
        return entry.name.startswith(".") or entry.is_symlink() or entry.path == self._run_folder

    def _is_excluded(self, path: str) -> bool:
        return any(matches(path, pattern) for pattern in self._spec.exclude)

    def _is_asked_for(self, path: str) -> bool:
        if self._is_excluded(path):
            return False
        return not self._spec.include or any(matches(path, pattern) for pattern in self._spec.include)

    def _is_too_young(self, entry: os.DirEntry[str]) -> bool:
        if not self._spec.min_age_seconds:
            return False
        try:
            return entry.stat(follow_symlinks=False).st_mtime > self._written_before
        except OSError:
            return False  # it has just vanished, which opening it will tell

    def _is_media(self, path: str) -> bool:
        """By suffix or by bytes; what is neither is counted."""
        if self._may_be_media(path):
            return True
        self._skip(_suffix(path))
        return False

    def _may_be_media(self, path: str) -> bool:
        if _suffix(path) in MEDIA_SUFFIXES:
            return True
        self._check_cancelled()
        return type_at(f"{self._root}/{path}") is not None

    def _skip(self, suffix: str) -> None:
        known = suffix in self.skipped or len(self.skipped) < _COUNTED_SUFFIXES
        self.skipped[shown_path(suffix) if known else _OTHER_SUFFIXES] += 1


def _popped(stack: list[str]) -> Iterator[str]:
    """What is taken is let go of."""
    while stack:
        yield stack.pop()


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 - a string for each of very many files
