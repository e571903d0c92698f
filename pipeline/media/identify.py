"""Identifies a file by its bytes: opened once, checked, sniffed and hashed from the same descriptor.

A hash is remembered from run to run by what ``stat`` says of the file. It is not remembered where the file was
written within two seconds of hashing it: a second write could then hide behind the same time stamp.
"""

import errno
import hashlib
import math
import os
import stat
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from pipeline.clock import Clock
from pipeline.errors import Failure, ItemError
from pipeline.ledger.api import Identities
from pipeline.media.ahead import Ahead
from pipeline.media.sniff import ACCEPTED_TYPES, HEAD_BYTES, sniff
from pipeline.records import FileIdentity

CHUNK_BYTES: Final = 512 * 1024
CACHED_FILES: Final = 16_384
LARGE_BYTES: Final = 1024 * 1024
FRESH_NANOSECONDS: Final = 2_000_000_000
"""A file written this shortly before (or after) it was hashed is hashed again by the next run."""

CHECKED_SECONDS: Final = 1.0
"""A file looked at this recently is not looked at again: many rows may name it, and its hash is checked when sent."""

_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_A_FILE: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENODEV})
_LASTING: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EINVAL})


class Identified(msgspec.Struct, frozen=True, kw_only=True):
    """What a file is."""

    identity: FileIdentity
    mime_type: str
    sha256: str
    settled: bool = True
    """Whether it had lain unchanged for a while when it was hashed, so that ``identity`` vouches for the bytes."""


def _is_large(location: str) -> bool:
    """Whether reading the file is worth a thread of its own."""
    try:
        return os.lstat(location).st_size >= LARGE_BYTES
    except (OSError, ValueError):
        return False


def _nothing() -> None:
    """Never ask to stop."""


def identity_of(status: os.stat_result) -> FileIdentity:
    """The part of ``stat``'s answer that changes when the bytes do."""
    return FileIdentity(
        size_bytes=status.st_size, mtime_ns=status.st_mtime_ns, ctime_ns=status.st_ctime_ns, inode=status.st_ino
    )


def identify(
    location: str, *, shown: str, max_bytes: int, check_cancelled: Callable[[], None] = _nothing
) -> Identified:
    """Read ``location`` once and tell what it is; blocking. ``shown`` is its name in messages.

    ``check_cancelled`` is called for each chunk and may raise. Raises ``ItemError`` of kind missing_file,
    not_a_file, empty_file, unsupported_type, file_too_large or source_changed.
    """
    try:
        descriptor = os.open(location, _OPEN_FLAGS)
    except (OSError, ValueError) as error:
        raise unreadable(shown, error) from None
    try:
        before = os.fstat(descriptor)
        _check_regular(before, shown)
        chunk = memoryview(bytearray(min(CHUNK_BYTES, before.st_size + 1)))
        length = os.readv(descriptor, [chunk])
        mime_type = _accept(bytes(chunk[: min(length, HEAD_BYTES)]), before, shown, max_bytes)
        sha256 = _hash(descriptor, chunk, length, before.st_size, check_cancelled)
        identity = identity_of(before)
        if identity != identity_of(os.fstat(descriptor)):
            raise _failed("source_changed", f"{shown}: changed while it was read", retryable=True)
    except OSError as error:
        raise unreadable(shown, error) from None
    finally:
        os.close(descriptor)
    return Identified(identity=identity, mime_type=mime_type, sha256=sha256)


def type_at(location: str) -> str | None:
    """The MIME type of the file at ``location`` by its first bytes; None where it can't be told."""
    try:
        descriptor = os.open(location, _OPEN_FLAGS)
    except OSError:
        return None
    try:
        return sniff(os.read(descriptor, HEAD_BYTES)) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def unreadable(shown: str, error: OSError | ValueError) -> ItemError:
    """The item's failure for what the operating system said about a path."""
    code = error.errno if isinstance(error, OSError) else errno.EINVAL
    reason = (error.strerror if isinstance(error, OSError) else None) or "not a valid path"
    if code == errno.ENOENT:
        return _failed("missing_file", f"{shown}: no such file")
    if code in _NOT_A_FILE:
        return _failed("not_a_file", f"{shown}: not a regular file ({reason})")
    return _failed("missing_file", f"{shown}: can't be read ({reason})", retryable=code not in _LASTING)


def _failed(kind: str, message: str, *, retryable: bool = False) -> ItemError:
    return ItemError(Failure(stage="manifest", kind=kind, message=message, retryable=retryable))


def _check_regular(status: os.stat_result, shown: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _failed("not_a_file", f"{shown}: not a regular file")
    if status.st_size == 0:
        raise _failed("empty_file", f"{shown}: the file is empty")


def _accept(head: bytes, status: os.stat_result, shown: str, max_bytes: int) -> str:
    """The MIME type of a file that the API takes, by its first bytes. Raises ``ItemError`` where it does not."""
    mime_type = sniff(head)
    if mime_type is None:
        raise _failed("unsupported_type", f"{shown}: neither an image nor a video by its bytes")
    if mime_type not in ACCEPTED_TYPES:
        raise _failed("unsupported_type", f"{shown}: the API does not take {mime_type}; convert it first")
    if status.st_size > max_bytes:
        raise _failed("file_too_large", f"{shown}: {status.st_size:,} bytes, the limit is {max_bytes:,}")
    return mime_type


def _hash(descriptor: int, chunk: memoryview, length: int, size_bytes: int, check_cancelled: Callable[[], None]) -> str:
    """Over the first ``length`` bytes, which lie in ``chunk`` already, and whatever follows them. Where the file is
    smaller than a chunk, one byte more than its size was asked for."""
    digest = hashlib.sha256(chunk[:length])
    check_cancelled()
    if length == size_bytes < CHUNK_BYTES:
        return digest.hexdigest()  # its end was seen: a small file is one read
    total_bytes = length
    # The same memory: fresh pages cost a fifth of the hashing. What has grown meanwhile is not read to its new end.
    while total_bytes <= size_bytes and (length := os.readv(descriptor, [chunk])):
        digest.update(chunk[:length])
        total_bytes += length
        check_cancelled()
    return digest.hexdigest()


class SmallFiles(Protocol):
    """Identifies small files ahead of their turn; see ``hashing_process.py``."""

    large: deque[str]

    def expect(self, locations: Sequence[str]) -> bool: ...

    def found(self, location: str) -> tuple[int, Identified] | None: ...

    def close(self) -> None: ...


class Identifier:
    """Identifies files in a worker thread, each once for as long as it does not change.

    Not thread-safe: one thread at a time.
    """

    def __init__(
        self,
        identities: Identities,
        clock: Clock,
        *,
        max_bytes: int,
        check_cancelled: Callable[[], None] = _nothing,
        small_files: SmallFiles | None = None,
    ) -> None:
        self._identities = identities
        self._clock = clock
        self._max_bytes = max_bytes
        self._check_cancelled = check_cancelled
        self._cache: OrderedDict[str, Identified] = OrderedDict()
        self._checked_at: dict[str, float] = {}
        self._new: list[tuple[str, FileIdentity, str, str]] = []
        self._expected: deque[tuple[str, str]] = deque()
        self._ahead = Ahead(self._read, check_cancelled=check_cancelled)
        self._small_files = small_files
        self._shown: dict[str, str] = {}

    def expect(self, files: Sequence[tuple[str, str]]) -> None:
        """Look up together what earlier runs know of files that are about to be identified, in this order.

        Each is a location and its name in messages. Large ones that are not known are read ahead of their turn. What
        was expected before and has not been asked for is behind us: it belongs to items that failed.
        """
        self._ahead.abandon()
        self._expected = deque(files)
        unknown = list({location for location, _ in files if location not in self._cache})
        if unknown:
            for location, (identity, mime_type, sha256) in self._identities.known(unknown).items():
                self._keep(location, Identified(identity=identity, mime_type=mime_type, sha256=sha256))
        unread = [location for location, _ in files if location not in self._cache]
        if self._small_files is not None and self._small_files.expect(unread):
            self._shown = dict(files)
            self._expected.clear()  # it tells which of them are large

    def identify(self, location: str, shown: str) -> Identified:
        """As the function of this name, reading only what is not known already."""
        self._read_ahead()
        known = self._cache.get(location)
        now_seconds = time.monotonic()
        if known is not None:
            if now_seconds - self._checked_at.get(location, -math.inf) < CHECKED_SECONDS:
                return known
            if self._unchanged(location, known):
                self._cache.move_to_end(location)
                self._checked_at[location] = now_seconds
                return known
        hashed_at_ns, found = (
            (self._small_files.found(location) if self._small_files is not None else None)
            or self._ahead.take(location)
            or self._read(location, shown, self._check_cancelled)
        )
        touched_at_ns = max(found.identity.mtime_ns, found.identity.ctime_ns)
        if abs(hashed_at_ns - found.identity.mtime_ns) > FRESH_NANOSECONDS:
            self._new.append((location, found.identity, found.mime_type, found.sha256))
        if hashed_at_ns - touched_at_ns <= FRESH_NANOSECONDS:
            found = msgspec.structs.replace(found, settled=False)
        self._keep(location, found)
        return found

    def take_new(self) -> list[tuple[str, FileIdentity, str, str]]:
        """What was hashed since the last call and may be remembered: for ``Ledger.remember_identities``."""
        new, self._new = self._new, []
        return new

    def close(self) -> None:
        """Nothing of what was expected will be asked for."""
        self._expected.clear()
        self._ahead.close()
        if self._small_files is not None:
            self._small_files.close()

    def _read_ahead(self) -> None:
        while self._small_files is not None and self._small_files.large:
            location = self._small_files.large.popleft()
            if shown := self._shown.get(location):  # else it belongs to what is behind us
                self._expected.append((location, shown))
        while self._expected and self._ahead.has_room:
            location, shown = self._expected.popleft()
            if location not in self._cache and _is_large(location):
                self._ahead.begin(location, shown)

    def _read(self, location: str, shown: str, check_cancelled: Callable[[], None]) -> tuple[int, Identified]:
        """When it was begun, in nanoseconds, and what the file is."""
        begun_at_ns = int(self._clock.now().timestamp() * 1e9)
        return begun_at_ns, identify(location, shown=shown, max_bytes=self._max_bytes, check_cancelled=check_cancelled)

    def _unchanged(self, location: str, known: Identified) -> bool:
        try:
            status = os.lstat(location)
        except (OSError, ValueError):
            return False
        unchanged = stat.S_ISREG(status.st_mode) and identity_of(status) == known.identity
        # limits and signatures may have changed since it was remembered
        return unchanged and known.mime_type in ACCEPTED_TYPES and status.st_size <= self._max_bytes

    def _keep(self, location: str, found: Identified) -> None:
        self._cache[location] = found
        if len(self._cache) > CACHED_FILES:
            oldest, _ = self._cache.popitem(last=False)
            self._checked_at.pop(oldest, None)
