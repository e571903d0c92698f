"""Lines that could not be committed to results.jsonl, kept beside it until the next run takes them in."""

from pathlib import Path

from pipeline.results import durable
from pipeline.results.record import mark_of
from pipeline.results.recovery import NO_RECORD


def keep(folder: Path, stamp: str, data: bytes) -> Path:
    """Keep whole lines durably; raises ``OSError`` where even that fails."""
    path = folder / f"salvage-{stamp}.jsonl"
    durable.write_new_file(path, data)
    return path


def files_in(folder: Path) -> list[Path]:
    """What earlier runs kept, oldest first."""
    return sorted(path for path in folder.glob("salvage-*.jsonl") if path.is_file() and not path.is_symlink())


def whole_lines(path: Path) -> list[bytes]:
    """The lines of one such file, with their newlines, that are whole records; a full disk may have cut the last."""
    return [line + b"\n" for line in path.read_bytes().split(b"\n") if _is_record(line)]


def _is_record(line: bytes) -> bool:
    try:
        mark_of(line, 0)
    except NO_RECORD:
        return False
    return True
