"""A medium's bytes on their way out: one descriptor, opened once, watched for changes while it is read."""

import hashlib
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread

from pipeline.errors import Failure, ItemError
from pipeline.gemini.api import Body
from pipeline.records import Media

SMALL_BYTES = 2 * 1024 * 1024
"""A file up to this size is read once and held; a larger one streams in pieces."""

_PIECE_BYTES = 512 * 1024


class Source:
    """An open medium. Made by ``open_source``."""

    def __init__(self, fd: int, media: Media) -> None:
        self._fd = fd
        self._media = media
        self._stat = os.fstat(fd)

    @property
    def size_bytes(self) -> int:
        """Length of the medium."""
        return self._media.size_bytes

    async def check(self) -> None:
        """Raises ``ItemError`` (source_changed) if the file is no longer the one that was opened."""
        await to_thread.run_sync(self._check)

    async def body(self, offset: int, length: int) -> Body:
        """The bytes from ``offset``; whole where they are few, else streamed anew each time they are sent."""
        if length <= SMALL_BYTES:
            return await to_thread.run_sync(self._read_whole, offset, length)

        async def stream() -> AsyncIterator[bytes]:
            for start in range(offset, offset + length, _PIECE_BYTES):
                yield await to_thread.run_sync(self._read, start, min(_PIECE_BYTES, offset + length - start))

        return stream

    def identify(self) -> None:
        """Raises ``ItemError`` unless the bytes are those that the medium was identified by.

        A file that was only touched since is read once more, for its bytes decide.
        """
        known, found = self._media.identity, self._stat
        if not stat.S_ISREG(found.st_mode) or found.st_size != self._media.size_bytes:
            raise _changed(self._media)
        if (found.st_mtime_ns, found.st_ctime_ns, found.st_ino) == (known.mtime_ns, known.ctime_ns, known.inode):
            return
        digest = hashlib.sha256()
        for start in range(0, found.st_size, _PIECE_BYTES):
            digest.update(self._read(start, min(_PIECE_BYTES, found.st_size - start)))
        if digest.hexdigest() != self._media.sha256:
            raise _changed(self._media)

    def _check(self) -> None:
        now = os.fstat(self._fd)
        if (now.st_size, now.st_mtime_ns) != (self._stat.st_size, self._stat.st_mtime_ns):
            raise _changed(self._media)

    def _read(self, start: int, length: int) -> bytes:
        data = os.pread(self._fd, length, start)
        while len(data) < length:
            more = os.pread(self._fd, length - len(data), start + len(data))
            if not more:
                raise _changed(self._media)
            data += more
        self._check()
        return data

    def _read_whole(self, offset: int, length: int) -> bytes:
        data = self._read(offset, length)
        if length == self.size_bytes and hashlib.sha256(data).hexdigest() != self._media.sha256:
            raise _changed(self._media)
        return data


@asynccontextmanager
async def open_source(media: Media) -> AsyncIterator[Source]:
    """Open ``media`` and make sure that it still is what it was. Raises ``ItemError`` (source_changed)."""
    fd = await to_thread.run_sync(_open, media)
    try:
        source = Source(fd, media)
        await to_thread.run_sync(source.identify)
        yield source
    finally:
        os.close(fd)


def _open(media: Media) -> int:
    """Never follows a link and never blocks on a FIFO, whatever has taken the file's place meanwhile."""
    try:
        return os.open(media.location, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _changed(media, os.strerror(error.errno or 0)) from None


def _changed(media: Media, why: str = "") -> ItemError:
    message = f"the file changed after it was read: {media.path}" + (f" ({why})" if why else "")
    return ItemError(Failure(stage="upload", kind="source_changed", message=message))
