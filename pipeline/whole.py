"""Writes that are whole or did not happen, and the sentence about a disk that can't take them."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import StopForHuman

_PRIVATE_FILE = 0o600
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``: ``os.write`` may take less, and on a nearly full disk it does."""
    view = memoryview(data)
    while view:
        written = os.write(fd, view)
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = view[written:]


def append_whole(fd: int, data: bytes, end: int) -> None:
    """Append to the file of ``fd``, which ends at ``end``. What fails is cut off again: that works on a full disk too.

    The length is looked at afterwards, for a broken disk may take fewer bytes than it says.
    """
    try:
        write_all(fd, data)
        check_length(fd, end + len(data))
    except OSError:
        with suppress(OSError):  # then whoever reads the file finds a torn tail
            os.ftruncate(fd, end)
        raise


def check_length(fd: int, expected: int) -> None:
    """Raises ``OSError`` unless the file is this long."""
    length = os.fstat(fd).st_size
    if length != expected:
        raise OSError(errno.EIO, f"{length} bytes long instead of {expected}")


def replace_file(path: Path, data: bytes) -> None:
    """Give the file this content: a reader finds the old one or the new one, also after a power cut.

    Raises ``OSError``.
    """
    temporary = path.with_suffix(".tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE_FILE)
        try:
            append_whole(fd, data, 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def is_no_room(error: OSError) -> bool:
    """Whether space, a quota or a file's allowed length is used up."""
    return error.errno in _NO_ROOM


def trouble(error: OSError) -> str:
    """The beginning of a sentence about it."""
    return "No space left" if is_no_room(error) else "Can't write safely"


@contextmanager
def disk_trouble(path: Path) -> Iterator[None]:
    """``OSError`` of the body, said as a sentence about ``path``."""
    try:
        yield
    except OSError as error:
        what = f"{trouble(error)} for {error.filename or path} ({error.strerror})"
        raise StopForHuman(f"{what}: see to the disk, then run again") from error
