"""Reads results.jsonl as a crash may have left it: whole lines, a torn tail, damage; pure over chunks of bytes."""

from collections.abc import Iterable, Iterator

import msgspec

from pipeline.errors import PipelineError
from pipeline.ledger.api import Mark
from pipeline.results.record import mark_of


class DamagedLine(PipelineError):
    """A line that is no whole record stands before one that is: no crash of ours leaves that behind."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the line at byte {offset} is damaged")
        self.offset = offset


class Scan:
    """One pass over the file from ``start``, the beginning of a line: iterate ``marks``, then ask for the rest.

    ``good_end`` is where the last whole line ends. What follows it is a torn tail, unless ``unterminated``
    holds the mark of a whole record that lacks only its newline (not counted in ``good_end``).
    """

    def __init__(self, chunks: Iterable[bytes], *, start: int = 0) -> None:
        self._chunks = chunks
        self.good_end = start
        self.unterminated: Mark | None = None

    def marks(self) -> Iterator[Mark]:
        """The mark of every whole line, in order. Raises ``DamagedLine``."""
        offset = self.good_end
        damaged_at: int | None = None
        for line, is_terminated in split_lines(self._chunks):
            try:
                mark = mark_of(line, offset)
            except (msgspec.DecodeError, UnicodeDecodeError):
                damaged_at = offset if damaged_at is None else damaged_at
            else:
                if damaged_at is not None:
                    raise DamagedLine(damaged_at)
                if is_terminated:
                    self.good_end = offset + mark.size_bytes
                    yield mark
                else:
                    self.unterminated = mark
            offset += len(line) + 1


def split_lines(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    r"""Lines by ``\n`` alone, without it, and whether it was there; an empty rest is no line."""
    begun: list[bytes] = []
    for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        if whole:
            begun.append(whole[0])
            yield b"".join(begun), True
            begun.clear()
            for line in whole[1:]:
                yield line, True
        begun.append(rest)
    last = b"".join(begun)
    if last:
        yield last, False
