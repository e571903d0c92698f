"""Reads results.jsonl as a crash may have left it: whole lines, a torn tail, damage; pure over chunks of bytes."""

from collections.abc import Iterable, Iterator

import msgspec

from pipeline.errors import PipelineError
from pipeline.ledger.api import Mark
from pipeline.results.record import mark_of, marks_of

NO_RECORD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


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
        self._offset = start
        self._damaged_at: int | None = None
        self.good_end = start
        self.unterminated: Mark | None = None

    def marks(self) -> Iterator[Mark]:
        """The mark of every whole line, in order. Raises ``DamagedLine``."""
        for block in blocks_of_lines(self._chunks):
            offset = self._offset
            self._offset += len(block)
            if self._damaged_at is None and block.endswith(b"\n"):
                try:
                    marks = marks_of(block, offset)
                except NO_RECORD:
                    pass  # then one by one, to find out which
                else:
                    self.good_end = self._offset
                    yield from marks
                    continue
            yield from self._one_by_one(block, offset)

    def _one_by_one(self, block: bytes, offset: int) -> Iterator[Mark]:
        *lines, rest = block.split(b"\n")
        for line in lines:
            mark = self._mark_of(line, offset)
            offset += len(line) + 1
            if mark:
                self.good_end = offset
                yield mark
        if rest:
            self.unterminated = self._mark_of(rest, offset)

    def _mark_of(self, line: bytes, offset: int) -> Mark | None:
        """None where the line is damaged: which is forgiven only while no whole one follows."""
        try:
            mark = mark_of(line, offset)
        except NO_RECORD:
            self._damaged_at = offset if self._damaged_at is None else self._damaged_at
            return None
        if self._damaged_at is not None:
            raise DamagedLine(self._damaged_at)
        return mark


def blocks_of_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    r"""The same bytes cut after a ``\n`` (and nowhere else: not at what Unicode or Windows call a line's end)."""
    begun: list[bytes] = []
    for chunk in chunks:
        cut = chunk.rfind(b"\n") + 1
        if cut:
            yield b"".join((*begun, chunk[:cut]))
            begun.clear()
        begun.append(chunk[cut:])
    rest = b"".join(begun)
    if rest:
        yield rest
