"""A medium's bytes on their way out: one descriptor, opened once, watched for changes while it is read."""

import errno
import hashlib
import os
import stat
from collections.abc import AsyncIterator
from typing import Final

from anyio import to_thread
from anyio.lowlevel import checkpoint

from pipeline.errors import Failure, ItemError
from pipeline.gemini.api import Body
from pipeline.records import Media

SMALL_BYTES = 2 * 1024 * 1024
"""A file up to this size is read once and held; a larger one streams in pieces."""

TINY_BYTES = 64 * 1024
"""A file up to this size is read at once: it was hashed a moment ago, so it comes from memory in a tenth of the time
that a thread would take to be woken for it."""

_PIECE_BYTES = 1024 * 1024
_CACHED_PIECE_BYTES = 120 * 1024
"""Just less than what glibc asks the system for anew each time: pages fresh from there are dearer than the copy."""

_TURN_BYTES = 1024 * 1024
"""After so much the file is looked at, and others have their turn: a fast network takes megabytes at once, and many
files are on their way."""

_NOWAIT: Final[int | None] = getattr(os, "RWF_NOWAIT", None)
_CLOSED = -1


_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENODEV})
_LASTING = frozenset({errno.EACCES, errno.EPERM})


class Source:
    """An open medium. Made by ``open_source``. A small one is held whole; its descriptor is closed already."""

    __slots__ = ("_fd", "_media", "_stat", "whole")

    def __init__(self, fd: int, media: Media) -> None:
        """Takes ``fd`` over."""
        self._fd = fd
        self._media = media
        self._stat = os.fstat(fd)
        self.whole: bytes | None = None

    @property
    def size_bytes(self) -> int:
        """Length of the medium."""
        return self._media.size_bytes

    def check(self) -> None:
        """Raises ``ItemError`` (source_changed) if the file is no longer the one that was opened.

        Not to be asked where its bytes are held: they can't change any more.
        """
        now = os.fstat(self._fd)
        if (now.st_size, now.st_mtime_ns) != (self._stat.st_size, self._stat.st_mtime_ns):
            raise _changed(self._media)

    async def confirm(self, told_sha256: str | None) -> None:
        """After all was sent: raises ``ItemError`` (source_changed) if it may have been other bytes than the medium's.

        A change can keep a file's length and set its time back; it can't keep its ctime. Of bytes that are held the
        service tells the hash, ``told_sha256``; they are hashed here where it tells none, or another.
        """
        if self.whole is not None:
            if told_sha256 != self._media.sha256:
                self._check_hash(hashlib.sha256(self.whole))
            return
        self.check()
        self._stat = os.fstat(self._fd)
        if not self._is_as_identified():
            await to_thread.run_sync(self.identify)

    def body(self, offset: int, length: int) -> Body:
        """The bytes from ``offset``; those of a large file streamed anew each time they are sent.

        It was hashed a moment ago, so it mostly comes from memory, without a thread's being woken for each piece.
        """
        if self.whole is not None:
            return self.whole[offset : offset + length]

        async def stream() -> AsyncIterator[bytes | bytearray]:
            end = offset + length
            at = offset
            while at < end:
                piece: bytes | bytearray | None = _read_cached(self._fd, at, min(_CACHED_PIECE_BYTES, end - at))
                if piece is None:
                    piece = await _pread(self._fd, at, min(_PIECE_BYTES, end - at))
                if not piece:
                    raise _changed(self._media)
                at += len(piece)
                is_turn = at == end or (at - offset) % _TURN_BYTES < len(piece)
                if is_turn:
                    self.check()
                yield piece
                if is_turn:
                    await checkpoint()

        return stream

    def close(self) -> None:
        """Close the descriptor, once."""
        if self._fd != _CLOSED:
            os.close(self._fd)
            self._fd = _CLOSED

    def hold(self) -> None:
        """Read all of it, and make sure that it is what the medium was identified by. Raises ``ItemError``."""
        self._check_regular()
        self.whole = self._read(0, self.size_bytes)
        if not self._is_as_identified():
            self._check_hash(hashlib.sha256(self.whole))

    def identify(self) -> None:
        """Raises ``ItemError`` unless the bytes are those that the medium was identified by.

        A file that was only touched since is read once more, for its bytes decide.
        """
        self._check_regular()
        if self._is_as_identified():
            return
        digest = hashlib.sha256()
        for start in range(0, self.size_bytes, _PIECE_BYTES):
            digest.update(self._read(start, min(_PIECE_BYTES, self.size_bytes - start)))
        self._check_hash(digest)

    def _read(self, start: int, length: int) -> bytes:
        data = os.pread(self._fd, length, start)
        while len(data) < length:
            more = os.pread(self._fd, length - len(data), start + len(data))
            if not more:
                raise _changed(self._media)
            data += more
        self.check()
        return data

    def _is_as_identified(self) -> bool:
        known, found = self._media.identity, self._stat
        return (found.st_mtime_ns, found.st_ctime_ns, found.st_ino) == (known.mtime_ns, known.ctime_ns, known.inode)

    def _check_hash(self, digest: "hashlib._Hash") -> None:
        if digest.hexdigest() != self._media.sha256:
            raise _changed(self._media)

    def _check_regular(self) -> None:
        if not stat.S_ISREG(self._stat.st_mode) or self._stat.st_size != self._media.size_bytes:
            raise _changed(self._media)


async def _pread(fd: int, offset: int, length: int) -> bytes:
    """In a thread, and at an offset of its own: a read that was given up may go on, and must move nobody else's."""
    import aiofiles.os

    return await aiofiles.os.wrap(os.pread)(fd, length, offset)


def _read_cached(fd: int, offset: int, length: int) -> bytearray | None:
    """What the page cache holds; None where the disk would have to be waited for, or the system can't tell."""
    if _NOWAIT is None:
        return None
    piece = bytearray(length)
    try:
        read = os.preadv(fd, [piece], offset, _NOWAIT)
    except OSError:
        return None
    del piece[read:]
    return piece


async def open_source(media: Media) -> Source:
    """Open ``media``, which must still be what it was; to be closed. Raises ``ItemError`` (source_changed)."""
    return _prepare(media) if media.size_bytes <= TINY_BYTES else await to_thread.run_sync(_prepare, media)


def _prepare(media: Media) -> Source:
    """All that is to be done before anything is sent, in one go: thread hops cost more than reading a small file."""
    source = Source(_open(media), media)
    try:
        if media.size_bytes <= SMALL_BYTES:
            source.hold()
            source.close()
        else:
            source.identify()
    except BaseException:
        source.close()
        raise
    return source


def _open(media: Media) -> int:
    """Never follows a link and never blocks on a FIFO, whatever has taken the file's place meanwhile."""
    try:
        return os.open(media.location, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise _changed(media, str(error.strerror)) from None
        message = f"{media.path}: can't be read any more ({error.strerror})"
        retryable = error.errno not in _LASTING  # too many open files, a disk in trouble
        failure = Failure(stage="upload", kind="missing_file", message=message, retryable=retryable)
        raise ItemError(failure) from None


def _changed(media: Media, why: str = "") -> ItemError:
    message = f"the file changed after it was read: {media.path}" + (f" ({why})" if why else "")
    return ItemError(Failure(stage="upload", kind="source_changed", message=message))
