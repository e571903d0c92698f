"""Finds what is wrong with the lines of a run folder; pure over chunks of bytes and the marks that the ledger has."""

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from pipeline.ledger.api import Mark
from pipeline.results.record import mark_of, marks_of
from pipeline.results.recovery import NO_RECORD, blocks_of_lines

SHOWN_OF_A_KIND = 20


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. ``line`` counts from 1, ``offset`` is in bytes; null where it is about no one line."""

    kind: str
    sentence: str
    line: int | None = None
    offset: int | None = None


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line as it lies in the file; ``mark`` is None where it is no whole record."""

    number: int
    offset: int
    size_bytes: int
    mark: Mark | None
    is_ended: bool


class Findings:
    """Problems in the order in which they were found, of each kind the first few and the number of the rest."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, sentence: str, line: Line | None = None) -> None:
        """One more."""
        self._counts[kind] += 1
        if self._counts[kind] <= SHOWN_OF_A_KIND:
            number, offset = (line.number, line.offset) if line else (None, None)
            self._problems.append(Problem(kind=kind, sentence=sentence, line=number, offset=offset))

    def __contains__(self, kind: str) -> bool:
        return kind in self._counts

    def problems(self) -> list[Problem]:
        """All of them."""
        rest = [(kind, count - SHOWN_OF_A_KIND) for kind, count in self._counts.items()]
        more = [Problem(kind=kind, sentence=f"{number:,} more of {kind}") for kind, number in rest if number > 0]
        return self._problems + more


def lines_of(chunks: Iterable[bytes]) -> Iterator[Line]:
    """Every line, damaged ones too."""
    number, offset = 1, 0
    for block in blocks_of_lines(chunks):
        for line in _whole_lines(block, number, offset) or _single_lines(block, number, offset):
            yield line
            number, offset = line.number + 1, line.offset + line.size_bytes


def _whole_lines(block: bytes, number: int, offset: int) -> list[Line] | None:
    """The lines of a block that has no damaged one, which is most; else None."""
    if not block.endswith(b"\n"):
        return None
    try:
        marks = marks_of(block, offset)
    except NO_RECORD:
        return None
    return [Line(at, mark.offset, mark.size_bytes, mark, is_ended=True) for at, mark in enumerate(marks, number)]


def _single_lines(block: bytes, number: int, offset: int) -> Iterator[Line]:
    *ended, rest = block.split(b"\n")
    for at, raw in enumerate([*ended, rest] if rest else ended, number):
        is_ended = at - number < len(ended)
        size_bytes = len(raw) + is_ended
        yield Line(at, offset, size_bytes, _mark(raw, offset), is_ended)
        offset += size_bytes


def _mark(raw: bytes, offset: int) -> Mark | None:
    try:
        return mark_of(raw, offset)
    except NO_RECORD:
        return None


class LineCheck:
    """Looks at one line after another: whole, ended, its key new. Keeps a number for each key."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._keys: set[int] = set()
        self.lines = 0

    @property
    def keys(self) -> int:
        """Different keys so far."""
        return len(self._keys)

    def see(self, line: Line) -> None:
        """The next line."""
        where = f"line {line.number:,} (byte {line.offset:,}, {line.size_bytes:,} bytes)"
        if line.mark is None:
            kind, what = ("damaged_line", "is no whole record") if line.is_ended else ("torn_tail", "is torn off")
            self._findings.add(kind, f"{where} {what}", line)
            return
        self.lines += 1
        if not line.is_ended:
            self._findings.add("no_newline", f"{where} is whole but for its newline", line)
        if hash(line.mark.key) in self._keys:
            sentence = f"{where} is another of the key {line.mark.key!r}: the last is current"
            self._findings.add("duplicate_key", sentence, line)
        self._keys.add(hash(line.mark.key))


class LedgerCheck:
    """Compares lines with the marks of the ledger, both in the order of the file. Keeps what disagrees only."""

    def __init__(self, marks: Iterator[Mark], findings: Findings) -> None:
        self._marks = marks
        self._findings = findings
        self._next = next(marks, None)
        self._unknown: dict[int, Line] = {}
        """Lines that the ledger does not name, by key, until a later line of the key that it does."""

    def see(self, line: Line) -> None:
        """The next whole line."""
        self._gone_before(line.offset)
        mark = line.mark
        if mark is None:
            return
        if self._next is None or self._next.offset != line.offset:
            self._unknown[hash(mark.key)] = line
            return
        self._unknown.pop(hash(mark.key), None)
        if self._next != mark:
            self._findings.add("ledger_differs", f"line {line.number:,}: the ledger says otherwise about it", line)
        self._next = next(self._marks, None)

    def end(self) -> None:
        """No more lines."""
        self._gone_before(None)
        for line in self._unknown.values():
            sentence = f"line {line.number:,} (byte {line.offset:,}): the ledger has not heard of it"
            self._findings.add("ledger_behind", sentence, line)

    def _gone_before(self, offset: int | None) -> None:
        while self._next is not None and (offset is None or self._next.offset < offset):
            sentence = f"the ledger names a line of {self._next.key!r} at byte {self._next.offset:,} that is not there"
            self._findings.add("ledger_ahead", sentence)
            self._next = next(self._marks, None)
