"""Confinement: turns what a row calls a medium into a file to open, inside the folders it may lie in.

Every path is resolved, symlinks and all, before anything is opened. Resolved folders are cached, so that a million
rows over a few folders cost a dictionary look-up each.
"""

import os
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Final

from pipeline.manifest.entry import failed, not_utf8, shown_path
from pipeline.manifest.globs import expand, is_pattern, natural_path_key

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
PATH_CHARACTERS: Final = 4096
"""Longest media path."""
_CACHED_LOCATIONS: Final = 16_384
_CACHED_FOLDERS: Final = 16_384
_CACHED_PATTERNS: Final = 64


class Confinement:
    """Resolves the media paths of a manifest that lies in ``root``.

    ``most_files`` is how many one pattern may find: more can't be sent in one request anyway. ``check_cancelled`` is
    called now and then while a pattern is looked up, and may raise.
    """

    def __init__(
        self,
        root: Path,
        media_roots: Sequence[Path],
        *,
        most_files: int,
        check_cancelled: Callable[[], None] = lambda: None,
    ) -> None:
        self._root = os.path.realpath(root)
        self._allowed = tuple(dict.fromkeys((self._root, *(os.path.realpath(path) for path in media_roots))))
        self._most_files = most_files
        self._check_cancelled = check_cancelled
        # a location stays confined while it is cached: what is opened there may not be a symlink (O_NOFOLLOW)
        self._location = lru_cache(maxsize=_CACHED_LOCATIONS)(self._locate)
        self._folder = lru_cache(maxsize=_CACHED_FOLDERS)(self._resolve_folder)
        self._pattern = lru_cache(maxsize=_CACHED_PATTERNS)(self._expand)

    def resolve(self, path: str) -> list[tuple[str, str]]:
        """(path as shown, location to open) of each file that ``path`` names, a pattern's in natural order.

        Raises ``ItemError`` of kind unsupported_source, outside_root, missing_file, not_a_file, too_many_images or
        bad_row.
        """
        if len(path) > PATH_CHARACTERS:  # no system opens one, and resolving it would take for ever
            raise failed("missing_file", f"a media path has {len(path):,} characters: {path[:80]}…")
        if "://" in path and (url := _URL.match(path)):
            raise failed("unsupported_source", f"{url[1].lower()}:// sources are not supported yet: {path}")
        if not path or "\0" in path:
            raise failed("bad_row", "a media path is empty or holds a NUL character")
        try:
            if is_pattern(path) and not os.path.lexists(self._absolute(path)):
                return [(shown, self._location(shown)) for shown in self._pattern(path)]
            return [(path, self._location(path))]
        except RecursionError:  # realpath calls itself for each
            raise failed("not_a_file", f"{path}: leads over too many symbolic links") from None

    def _locate(self, path: str) -> str:
        folder, name = os.path.split(path)
        if name in {"", ".", ".."}:
            return self._folder(path)
        location = f"{self._folder(folder)}/{name}"
        if not os.path.islink(location):  # noqa: PTH114 - strings are cheaper
            return location
        target = os.path.realpath(location)
        self._confine(target, path)
        return target

    def _absolute(self, path: str) -> str:
        return path if path.startswith("/") else f"{self._root}/{path}"

    def _resolve_folder(self, folder: str) -> str:
        resolved = os.path.realpath(self._absolute(folder))
        self._confine(resolved, folder)
        return resolved

    def _confine(self, location: str, path: str) -> None:
        for allowed in self._allowed:
            if location == allowed or location.startswith(allowed if allowed.endswith("/") else allowed + "/"):
                return
        raise failed("outside_root", f"{path}: lies outside the manifest's folder; allow it with --media-root")

    def _expand(self, pattern: str) -> tuple[str, ...]:
        parts = pattern.split("/")
        fixed = next(at for at, part in enumerate(parts) if is_pattern(part))
        wild = [part for part in parts[fixed:] if part not in {"", "."}]
        if ".." in wild:
            raise failed("outside_root", f"{pattern}: '..' after a wildcard")
        prefix = "/".join(parts[:fixed]) + "/" if fixed else ""
        walk = expand(self._folder(prefix), wild, check_cancelled=self._check_cancelled)
        found = list(islice(walk, self._most_files + 1))
        if not found:
            raise failed("missing_file", f"{pattern}: no file matches")
        if len(found) > self._most_files:
            raise failed("too_many_images", f"{pattern}: matches more than {self._most_files:,} files")
        for path in found:
            if shown_path(path) != path:
                raise not_utf8(prefix + path)
        return tuple(prefix + path for path in sorted(found, key=natural_path_key))
