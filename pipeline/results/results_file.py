"""results.jsonl held open and locked by the one run that may write it; every method blocks, for worker threads."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.errors import RunLocked, StopForHuman
from pipeline.ledger.api import Mark, Offset
from pipeline.results import durable, salvage
from pipeline.results.recovery import DamagedLine, Scan
from pipeline.whole import append_whole, disk_trouble, trouble

NAME = "results.jsonl"
TAIL_BYTES_LIMIT = 64 * 1024 * 1024
LOCK_TRIES = 5
LOCK_RETRY_SECONDS = 0.05


class ResultsFile:
    """Appends durably. ``end`` is where the durable lines end; nothing below it is ever cut or rewritten."""

    def __init__(self, folder: Path, stamp: Callable[[], str]) -> None:
        """``stamp`` gives the moment as it stands in the names of files set aside."""
        self.path = folder / NAME
        self._stamp = stamp
        self._fd = open_locked(self.path)
        self._failure: OSError | None = None
        self.end = os.fstat(self._fd).st_size

    def close(self) -> None:
        """Let go of the file and its lock."""
        os.close(self._fd)

    def offset(self) -> Offset:
        """The file as it is now, for the ledger."""
        with disk_trouble(self.path):
            status = os.fstat(self._fd)
        return Offset(inode=status.st_ino, size_bytes=self.end, mtime_ns=status.st_mtime_ns)

    def durable_end(self, offset: Offset | None) -> int:
        """How far an earlier run knew the file to be durable: 0 where ``offset`` is of another file or past its end."""
        status = os.fstat(self._fd)
        is_void = offset is None or offset.inode != status.st_ino or offset.size_bytes > status.st_size
        return 0 if offset is None or is_void else offset.size_bytes

    def only_grew_since(self, offset: Offset) -> bool:
        """Whether the file is as it was at ``offset``, but for a few more lines perhaps."""
        status = os.fstat(self._fd)
        grown = status.st_size - offset.size_bytes
        if offset.inode != status.st_ino or not 0 <= grown <= TAIL_BYTES_LIMIT:
            return False
        if grown == 0:
            return offset.mtime_ns == status.st_mtime_ns
        return offset.size_bytes == 0 or os.pread(self._fd, 1, offset.size_bytes - 1) == b"\n"

    def scan(self, start: int) -> Scan:
        """A scan from ``start`` to the end of the file."""
        return Scan(durable.read_range(self._fd, start, os.fstat(self._fd).st_size), start=start)

    def mend_tail(self, scan: Scan) -> Mark | None:
        """After ``scan``: end a record that lacks its newline, and tell its mark; or move a torn tail aside."""
        size = os.fstat(self._fd).st_size
        self.end = size
        if scan.unterminated:
            durable.write_all(self._fd, b"\n")
            self.end = size + 1
        elif scan.good_end < size:
            torn = b"".join(durable.read_range(self._fd, scan.good_end, size))
            durable.write_new_file(self.path.with_name(f"{NAME}.torn-{self._stamp()}"), torn)
            os.ftruncate(self._fd, scan.good_end)
            self.end = scan.good_end
        # Also where nothing was mended: lines that a killed run wrote may not have reached the disk yet.
        durable.sync_data(self._fd)
        durable.sync_folder(self.path.parent)
        return scan.unterminated

    def append(self, lines: Sequence[bytes]) -> None:
        """Return when the lines are durable. Otherwise keep them beside in ``salvage-*.jsonl`` and stop the run.

        After one failure nothing more is written here: after a failed sync, the system may call lost pages clean.
        """
        data = b"".join(lines)
        try:
            if self._failure:
                raise self._failure
            self._append(data)
        except OSError as error:
            self._failure = error
            raise self._given_up(data, error) from error

    def _append(self, data: bytes) -> None:
        """Write after ``end`` and sync."""
        append_whole(self._fd, data, self.end)
        durable.sync_data(self._fd)
        self.end += len(data)

    def append_salvaged(self, lines: Sequence[bytes]) -> None:
        """As ``append``, for lines that are kept already."""
        with disk_trouble(self.path):
            self._append(b"".join(lines))

    def replace_with(self, fd: int) -> None:
        """``fd``, locked and whole, is now the file that the name means."""
        os.close(self._fd)
        self._fd = fd
        self.end = os.fstat(fd).st_size

    def read_range(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes of the file in chunks."""
        return durable.read_range(self._fd, start, end)

    def _given_up(self, data: bytes, error: OSError) -> StopForHuman:
        try:
            kept_in = salvage.keep(self.path.parent, self._stamp(), data)
        except OSError:
            kept = "answers since then could not be kept either and will be asked for again"
        else:
            kept = f"answers since then are kept in {kept_in.parent} until the next run takes them in"
        return StopForHuman(
            f"{trouble(error)} for {self.path} ({error.strerror}): {kept}. See to the disk, then run again"
        )


def temporary(folder: Path) -> Path:
    """Where compaction builds the next results.jsonl; what lies there when a run begins is of no use."""
    return folder / f"{NAME}.compacting"


def open_locked(path: Path) -> int:
    """Open and lock the file; again where another run's compaction replaced it between the two."""
    while True:
        fd = open_regular(path, os.O_APPEND)
        try:
            lock(fd, path)
        except BaseException:
            os.close(fd)
            raise
        with suppress(FileNotFoundError):
            if os.fstat(fd).st_ino == path.lstat().st_ino:
                return fd
        os.close(fd)


def open_regular(path: Path, extra_flags: int = 0) -> int:
    """Open or make a private regular file for reading and writing, following no symbolic link."""
    try:
        fd = os.open(path, durable.OPEN_FLAGS | os.O_NONBLOCK | extra_flags, durable.PRIVATE_FILE)
    except OSError as error:
        why = "is a symbolic link" if error.errno == errno.ELOOP else f"can't be opened ({error.strerror})"
        raise StopForHuman(f"{path} {why}: put that right, then run again") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StopForHuman(f"{path} is not a regular file: put that right, then run again")
    return fd


def lock(fd: int, path: Path) -> None:
    """Take the exclusive lock. Raises ``RunLocked`` where another process has it, and does not let go at once."""
    for patience in reversed(range(LOCK_TRIES)):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not patience:
                raise RunLocked(f"Another run holds {path.parent}: wait for it or end it") from error
            time.sleep(LOCK_RETRY_SECONDS)  # ``pipeline status`` holds it for an instant
        except OSError as error:
            raise unlockable(path.parent, str(error.strerror)) from error
        else:
            return


def unlockable(folder: Path, why: str) -> StopForHuman:
    """The sentence about a file system whose locks don't work."""
    return StopForHuman(f"Files can't be locked in {folder} ({why}): choose a run folder on a local disk")


def damaged(error: DamagedLine, folder: Path) -> StopForHuman:
    """What to do about a damaged line."""
    return StopForHuman(f"{folder / NAME}: {error}; mend it with: pipeline verify {folder} --repair")
