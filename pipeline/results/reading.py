"""What results.jsonl says at this moment, for ``pipeline status``: without a ledger, and while a run goes on."""

import fcntl
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from pipeline.ledger.api import Doubts, Offset
from pipeline.records import Status, Usage
from pipeline.results.durable import CHUNK_BYTES
from pipeline.results.record import EMULATOR
from pipeline.results.recovery import NO_RECORD
from pipeline.results.results_file import NAME
from pipeline.results.run_folder import LEDGER, LOCK


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run folder stands. ``failed`` counts by kind, ``usage`` sums over the current lines."""

    run_is_on: bool
    succeeded: int
    blocked: int
    failed: dict[str, int]
    retryable: int
    emulated: int
    usage: Usage
    in_doubt: list[str]


class AskDoubts(Protocol):
    """Asks the ledger at a path for calls whose fate is unknown (``ledger.peek``)."""

    def __call__(self, path: Path, *, run_is_on: bool) -> Doubts:
        """What it knows of them."""
        ...


class _Error(msgspec.Struct):
    kind: str
    retryable: bool


class _Keyed(msgspec.Struct):
    key: str


_KEY = msgspec.json.Decoder(_Keyed)


class _Line(msgspec.Struct):
    key: str
    status: Status
    backend: str
    usage: Usage = Usage()
    error: _Error | None = None


def standing(folder: Path, *, doubts: AskDoubts) -> Standing:
    """Read the folder as it is now. A line that is being written, or is damaged, is passed over."""
    decode = msgspec.json.Decoder(_Line).decode
    statuses: Counter[Status] = Counter()
    kinds: Counter[str] = Counter()
    retryable = emulated = 0
    usage = Usage()
    keys: set[int] = set()
    for raw in lines_backwards(folder / NAME):
        try:
            line = decode(raw)
        except NO_RECORD:
            continue
        if hash(line.key) in keys:
            continue  # a later line of the key has been counted
        keys.add(hash(line.key))
        statuses[line.status] += 1
        emulated += line.backend == EMULATOR
        usage += line.usage
        if line.error and line.status is Status.FAILED:
            kinds[line.error.kind] += 1
            retryable += line.error.retryable
    run_is_on = is_held(folder / LOCK)
    known = doubts(folder / LEDGER, run_is_on=run_is_on)
    answered = keys_after(folder / NAME, known.taken_in) if known.keys and known.taken_in else set()
    return Standing(
        run_is_on=run_is_on,
        succeeded=statuses[Status.SUCCEEDED],
        blocked=statuses[Status.BLOCKED],
        failed=dict(kinds.most_common()),
        retryable=retryable,
        emulated=emulated,
        usage=usage,
        in_doubt=[key for key in known.keys if key not in answered],
    )


def keys_after(path: Path, offset: Offset) -> set[str]:
    """Keys of the whole lines behind what a ledger had taken in: a kill comes between a line and its mark."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_ino != offset.inode:
                return set()
            file.seek(offset.size_bytes)
            return {key for raw in file if raw.endswith(b"\n") and (key := _key_of(raw)) is not None}
    except OSError:
        return set()


def _key_of(raw: bytes) -> str | None:
    try:
        return _KEY.decode(raw).key
    except NO_RECORD:
        return None


def lines_backwards(path: Path) -> Iterator[bytes]:
    """Every ended line, the last first; none where there is no file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        yield from _ended_lines(_chunks_backwards(fd))
    finally:
        os.close(fd)


def _chunks_backwards(fd: int) -> Iterator[bytes]:
    """The last first. Not mapped into memory: all of the file would count as this program's."""
    end = os.fstat(fd).st_size
    while end:
        start = max(0, end - CHUNK_BYTES)
        yield os.pread(fd, end - start, start)
        end = start


def _ended_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    begun: list[bytes] = []  # a line whose start is not reached yet, its end first
    is_ended = False
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        if others:
            begun.append(others.pop())
            if is_ended:
                yield b"".join(reversed(begun))
            yield from reversed(others)
            begun, is_ended = [], True
        begun.append(first)
    if is_ended:
        yield b"".join(reversed(begun))


def is_held(lock: Path) -> bool:
    """Whether a run holds the folder."""
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
