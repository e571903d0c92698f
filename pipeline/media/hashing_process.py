"""Identifies small files in a process of its own: threads and a busy event loop keep each other from Python's lock.

Measured at zero latency, pictures of 20 kB: what takes 45 us alone takes a run 200 in a thread. Whatever the process
can't tell (a large file, one that can't be used, anything once it is gone), who asks finds out for itself: so nothing
fails here, and a run without it is only slower.
"""

import os
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

import msgspec

from pipeline.errors import ItemError
from pipeline.media.identify import LARGE_BYTES, Identified, identify

ENOUGH_FILES: Final = 256
"""Fewer at once are not worth a process."""

FILES_AT_ONCE: Final = 128
LOOK_MILLISECONDS: Final = 100
_READ_BYTES: Final = 256 * 1024
_MESSAGE_BYTES: Final = 1024 * FILES_AT_ONCE
"""More than the answers to one question take."""

_LENGTH: Final = struct.Struct("<I")
_ROOT: Final = str(Path(__file__).resolve().parents[2])
_PROGRAM: Final = "import sys; sys.path.insert(0, sys.argv[1]); from pipeline.media.hashing_process import main; main()"


class _Found(msgspec.Struct, frozen=True, array_like=True):
    begun_at_ns: int
    file: Identified


_Answer = _Found | bool
"""What a file is; else whether it is large."""


class HashingProcess:
    """The process, seen by the one thread that uses it. Begun when there is enough to do, asked once it is up."""

    def __init__(self, *, max_bytes: int, check_cancelled: Callable[[], None]) -> None:
        """``max_bytes`` and ``check_cancelled`` as those of ``identify``."""
        self.large: deque[str] = deque()
        """Files that turned out to be large; for their reader to take out."""
        self._max_bytes = max_bytes
        self._check_cancelled = check_cancelled
        self._process: subprocess.Popen[bytes] | None = None
        self._is_up = False
        self._is_gone = _cores() < 2  # nothing runs beside anything there
        self._received = bytearray()
        self._wanted: dict[str, None] = {}
        """Not asked about yet, in the order in which they will be."""
        self._asked: list[str] = []
        """What the process is at."""
        self._told: dict[str, _Answer] = {}

    def expect(self, locations: Sequence[str]) -> bool:
        """These files will be looked for next, in about this order. Tells whether some may be found."""
        self._told.clear()
        self.large.clear()
        self._wanted = {}
        if len(locations) < ENOUGH_FILES or self._is_gone:
            return False
        self._wanted = dict.fromkeys(locations)
        if self._process is None:
            self._begin()
        return self._process is not None

    def found(self, location: str) -> tuple[int, Identified] | None:
        """When the file began to be read, in nanoseconds, and what it is; None where the process can't tell."""
        try:
            answer = self._answer(location)
        except (OSError, EOFError, ValueError, msgspec.MsgspecError):
            self.close()
            self._is_gone = True
            return None
        return (answer.begun_at_ns, answer.file) if isinstance(answer, _Found) else None

    def close(self) -> None:
        """End the process, which holds nothing that could be lost. Another may be begun."""
        if self._process is not None:
            self._process.kill()
            with suppress(OSError):  # it had not read all of the last question
                self._process.__exit__(None, None, None)
        self._process = None
        self._is_up = False
        self._received.clear()
        self._wanted, self._asked, self._told = {}, [], {}

    def _begin(self) -> None:
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, _ROOT, str(self._max_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is not for it: it ends with its input
            )
        except OSError:
            self._is_gone = True

    def _answer(self, location: str) -> _Answer:
        while location not in self._told:
            if location in self._wanted and not self._has_come_up():
                del self._wanted[location]
            if location not in self._wanted and location not in self._asked:
                return False
            self._ask()
            self._hear()
        answer = self._told.pop(location)
        if len(self._told) < FILES_AT_ONCE:  # so that it is at work while these are made use of
            self._ask()
        return answer

    def _has_come_up(self) -> bool:
        """Whether the process has said so, which it does once."""
        if not self._is_up and self._look(0):
            self._next()
            self._is_up = True
        return self._is_up

    def _ask(self) -> None:
        """One question at a time, so that neither side ever waits for the other to read."""
        if self._wanted and not self._asked:
            self._asked = [location for location, _ in zip(self._wanted, range(FILES_AT_ONCE), strict=False)]
            for location in self._asked:
                del self._wanted[location]
            _send(self._open().stdin, [os.fsencode(location) for location in self._asked])

    def _hear(self) -> None:
        told = dict(zip(self._asked, self._next(), strict=True))
        self._told |= told
        self.large.extend(location for location, answer in told.items() if answer is True)
        self._asked = []

    def _next(self) -> list[_Answer]:
        """The next message, when all of it is there."""
        while True:
            if len(self._received) >= _LENGTH.size:
                [length] = _LENGTH.unpack_from(self._received)
                if length > _MESSAGE_BYTES:
                    raise ValueError("no message of ours")
                end = _LENGTH.size + length
                if len(self._received) >= end:
                    message = bytes(self._received[_LENGTH.size : end])
                    del self._received[:end]
                    return msgspec.msgpack.decode(message, type=list[_Answer])
            while not self._look(LOOK_MILLISECONDS):
                self._check_cancelled()
            piece = os.read(self._output(), _READ_BYTES)
            if not piece:
                raise EOFError
            self._received += piece

    def _look(self, milliseconds: int) -> bool:
        poll = select.poll()
        poll.register(self._output(), select.POLLIN)
        return bool(poll.poll(milliseconds))

    def _output(self) -> int:
        stdout = self._open().stdout
        assert stdout is not None  # noqa: S101 - it is a pipe
        return stdout.fileno()

    def _open(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise EOFError
        return self._process


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _send(pipe: IO[bytes] | None, message: object) -> None:
    assert pipe is not None  # noqa: S101 - it is a pipe
    encoded = msgspec.msgpack.encode(message)
    pipe.write(_LENGTH.pack(len(encoded)) + encoded)
    pipe.flush()


def main() -> None:
    """The process: an empty list when it is up, then a list of answers for each of locations, until its input ends."""
    max_bytes = int(sys.argv[2])
    with suppress(OSError):
        _send(sys.stdout.buffer, [])
        while head := sys.stdin.buffer.read(_LENGTH.size):
            question = sys.stdin.buffer.read(_LENGTH.unpack(head)[0])
            locations = msgspec.msgpack.decode(question, type=list[bytes])
            _send(sys.stdout.buffer, [_identified(os.fsdecode(location), max_bytes) for location in locations])
    os._exit(0)  # nobody waits for an orderly end


def _identified(location: str, max_bytes: int) -> _Answer:
    try:
        if os.lstat(location).st_size >= LARGE_BYTES:
            return True
        begun_at_ns = time.time_ns()
        return _Found(begun_at_ns, identify(location, shown="", max_bytes=max_bytes))
    except (ItemError, OSError, ValueError):
        return False
