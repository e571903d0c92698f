"""Lines that could not be committed to results.jsonl, kept beside it or elsewhere until the next run takes them in."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from pipeline.results import durable
from pipeline.results.record import mark_of
from pipeline.results.recovery import NO_RECORD

_NAMES = "salvage-*.jsonl"
_ELSEWHERE = "pipeline-salvage-"


def keep(folder: Path, stamp: str, data: bytes) -> Path:
    """Keep whole lines durably: in the folder, else among the system's temporary files, often on another disk.

    Raises ``OSError`` where even that fails.
    """
    name = f"salvage-{stamp}.jsonl"
    try:
        return _kept(folder / name, data)
    except OSError:
        place = elsewhere(folder)
        place.mkdir(mode=0o700, exist_ok=True)
        if not _is_private(place):
            raise
        return _kept(place / name, data)


def _kept(path: Path, data: bytes) -> Path:
    try:
        durable.write_new_file(path, data)
    except OSError:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise
    return path


def elsewhere(folder: Path) -> Path:
    """The folder for lines of this run folder among the system's temporary files. Raises ``OSError``."""
    digest = sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"{_ELSEWHERE}{os.getuid()}-{digest}"


def files_in(folder: Path) -> list[Path]:
    """What earlier runs kept, oldest first."""
    return sorted((path for place in _places(folder) for path in place.glob(_NAMES) if _is_file(path)), key=_name)


def _places(folder: Path) -> Iterator[Path]:
    yield folder
    with suppress(OSError):
        place = elsewhere(folder)
        if _is_private(place):
            yield place


def _name(path: Path) -> str:
    return path.name


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_private(place: Path) -> bool:
    """Whether nobody else can have put anything there: anybody may make names among temporary files."""
    status = place.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not stat.S_IMODE(status.st_mode) & 0o077


def whole_lines(path: Path) -> list[bytes]:
    """The lines of one such file, with their newlines, that are whole records; a full disk may have cut the last."""
    return [line + b"\n" for line in path.read_bytes().split(b"\n") if _is_record(line)]


def let_go(path: Path) -> None:
    """The lines of this file are durable in results.jsonl."""
    path.unlink()
    durable.sync_folder(path.parent)  # were it back after a power cut, it would win over newer lines
    if path.parent.name.startswith(_ELSEWHERE):
        with suppress(OSError):  # there may be more
            path.parent.rmdir()


def _is_record(line: bytes) -> bool:
    try:
        mark_of(line, 0)
    except NO_RECORD:
        return False
    return True
