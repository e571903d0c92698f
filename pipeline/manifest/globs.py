"""Natural order, and path patterns matched component by component without following symlinks."""

import fnmatch
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final

_DIGITS: Final = re.compile(r"([0-9]+)")
_MAGIC: Final = re.compile(r"[*?\[]")

NaturalKey = tuple[tuple[tuple[int, str], ...], str]


def natural_key(text: str) -> NaturalKey:
    """Sorts ``img_2`` before ``img_10``, whatever the case; equal only for equal texts."""
    pieces = _DIGITS.split(text.casefold())
    # numbers are compared as (count of digits, digits), which is exact for any length
    return tuple(_number(p) if i % 2 else (0, p) for i, p in enumerate(pieces)), text


def _number(digits: str) -> tuple[int, str]:
    stripped = digits.lstrip("0")
    return len(stripped), stripped


def natural_path_key(path: str) -> tuple[NaturalKey, ...]:
    """``natural_key`` for each component, so that a folder's files stay together."""
    return tuple(natural_key(component) for component in path.split("/"))


def is_pattern(path: str) -> bool:
    """Whether ``path`` holds a wildcard."""
    return _MAGIC.search(path) is not None


@lru_cache(maxsize=1024)
def _component(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern), re.DOTALL)


def matches(path: str, pattern: str) -> bool:
    """Whether a relative ``path`` matches, from the right as ``PurePath.match`` does.

    ``**`` stands for any number of folders; a leading ``/`` ties the pattern to SOURCE's top.
    """
    anchored = pattern.startswith("/")
    parts = [part for part in pattern.split("/") if part]
    return _match(path.split("/"), parts if anchored else ["**", *parts])


def _match(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Greedy with one step back to the last ``**``: linear in practice, never exponential."""
    at = in_pattern = 0
    back: tuple[int, int] | None = None
    while at < len(path):
        if in_pattern < len(pattern) and pattern[in_pattern] == "**":
            back = (at, in_pattern)
            in_pattern += 1
        elif in_pattern < len(pattern) and _component(pattern[in_pattern]).match(path[at]):
            at, in_pattern = at + 1, in_pattern + 1
        elif back is not None:
            back = (back[0] + 1, back[1])
            at, in_pattern = back[0], back[1] + 1
        else:
            return False
    return all(part == "**" for part in pattern[in_pattern:])


def expand(folder: str, pattern: Sequence[str], *, check_cancelled: Callable[[], None]) -> Iterator[str]:
    """Files below ``folder``, relative to it, that match the components of ``pattern``; in no particular order.

    Hidden names match only a component that starts with a dot. Folders that are symlinks are not entered.
    ``check_cancelled`` is called for each folder and may raise.
    """
    fixed = next((at for at, part in enumerate(pattern) if part == "**"), len(pattern))
    folders: list[tuple[str, ...]] = [()]
    while folders:
        check_cancelled()
        relative = folders.pop()
        part = pattern[len(relative)] if len(relative) < fixed else "**"
        for name, is_folder in _entries("/".join((folder, *relative))):
            if name.startswith(".") and not part.startswith("."):
                continue
            path = (*relative, name)
            if not is_folder:
                if _match(path, pattern):
                    yield "/".join(path)
            elif part == "**" or (len(path) < len(pattern) and _component(part).match(name)):
                folders.append(path)


def _entries(folder: str) -> list[tuple[str, bool]]:
    try:
        with os.scandir(folder) as entries:
            return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except OSError:
        return []
