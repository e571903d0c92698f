"""Splits a byte stream into lines by ``\\n``, holding never more than one line, and that only up to a cap."""

import os
import select
from collections.abc import Callable, Iterator
from typing import Final

STDIN: Final = 0
"""Its descriptor."""

CHUNK_BYTES: Final = 256 * 1024
LINE_BYTES: Final = 16 * 1024 * 1024
"""Longest line of a manifest."""
PAUSE_SECONDS: Final = 0.05
"""How long a silent pipe is waited for before what came so far is taken on."""

Read = Callable[[], bytes | None]
"""The next bytes; ``b""`` at the end, None while there is nothing yet."""

Line = tuple[int, bytes | None]
"""A line's number from 1 on and its bytes without the newline; None for one that is too long."""


def lines(read: Read, most_bytes: int = LINE_BYTES) -> Iterator[Line | None]:
    """Every line; None whenever ``read`` has nothing yet. A byte order mark is dropped."""
    number, held_bytes, held = 1, 0, list[bytes]()

    def line(last: bytes) -> Line:
        if held_bytes + len(last) > most_bytes:
            return number, None
        content = b"".join((*held, last)) if held else last
        return number, content.removeprefix(b"\xef\xbb\xbf") if number == 1 else content

    while (chunk := read()) != b"":
        if chunk is None:
            yield None
            continue
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            yield line(piece)
            number, held_bytes, held = number + 1, 0, []
        held_bytes += len(rest)
        # what is too long is counted on, not kept
        held = [*held, rest] if rest and held_bytes <= most_bytes else held if held_bytes <= most_bytes else []
    if held_bytes:
        yield line(b"")


def reader(descriptor: int, check_cancelled: Callable[[], None]) -> Read:
    """Reads a descriptor that may be a pipe which stays silent for hours; ``check_cancelled`` may raise."""

    readable = select.poll()
    readable.register(descriptor, select.POLLIN)

    def read() -> bytes | None:
        check_cancelled()
        return os.read(descriptor, CHUNK_BYTES) if readable.poll(PAUSE_SECONDS * 1000) else None

    return read
