"""Bytes that stay: asking the disk itself to have them, on Linux and macOS."""

import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline import whole

CHUNK_BYTES = 256 * 1024  # what fits a processor's cache: measured best for scanning
PRIVATE_FILE = 0o600
write_all = whole.write_all
OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def sync_data(fd: int) -> None:
    """Return when the file's bytes and its length are on the disk. Never to be retried where it fails."""
    if sys.platform == "darwin":  # its fsync only reaches the drive's cache
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(fd)


def sync_folder(path: Path) -> None:
    """Make a new or replaced name in the folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_new_file(path: Path, data: bytes) -> None:
    """Make a private file that must not exist yet, durably."""
    fd = os.open(path, OPEN_FLAGS | os.O_EXCL, PRIVATE_FILE)
    try:
        whole.append_whole(fd, data, 0)
        sync_data(fd)
    finally:
        os.close(fd)
    sync_folder(path.parent)


def read_range(fd: int, start: int, end: int) -> Iterator[bytes]:
    """The bytes from ``start`` to ``end`` in chunks, without moving the file's position."""
    while start < end:
        chunk = os.pread(fd, min(CHUNK_BYTES, end - start), start)
        if not chunk:
            raise OSError(errno.EIO, f"the file ends at {start} instead of {end}")
        yield chunk
        start += len(chunk)
