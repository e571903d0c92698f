"""Standard streams as the world gives them: closed from the start, full, or hung up while a run goes on."""

import os
import sys
from contextlib import suppress
from typing import TextIO


def open_missing() -> None:
    """Put the null device where a standard stream is closed: else the next file or socket would take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def let_go(stream: TextIO) -> None:
    """Nobody reads ``stream`` any more: what it still holds, and all that is to come, goes nowhere."""
    with suppress(OSError, ValueError):  # it may be no file, or closed
        number, nowhere = stream.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
