"""A look into ledger.sqlite3 from outside, while a run may be going on: read-only, and content with what it finds."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from pipeline.ledger import lines, store
from pipeline.ledger.api import Doubts, Mark, Offset


class Look(msgspec.Struct, frozen=True):
    """What a ledger says of results.jsonl."""

    offset: Offset | None
    """How much of which file it has taken in."""
    marks: Iterator[Mark]
    """The lines it takes for current, in the order of the file."""


def doubts(path: Path, *, run_is_on: bool) -> Doubts:
    """The calls whose fate is unknown; while a run is on its own calls are merely out.

    A ledger that is missing or can't be read knows of none.
    """
    query = "SELECT key FROM intent WHERE earlier OR NOT ? ORDER BY key"
    try:
        with closing(store.open_reader(path)) as connection, store.transaction(connection, "DEFERRED"):
            keys = [key for (key,) in connection.execute(query, (run_is_on,))]
            return Doubts(keys=keys, taken_in=store.taken_in(connection))
    except sqlite3.Error:
        return Doubts()


@contextmanager
def look(path: Path) -> Iterator[Look | str]:
    """What the ledger says, or why it says nothing; for who holds the run folder."""
    if not path.exists():
        yield "is absent"
        return
    wal = path.with_name(f"{path.name}-wal")
    is_put_together = not wal.exists() or not wal.stat().st_size
    with store.in_our_words(path), closing(store.open_reader(path, at_rest=is_put_together)) as connection:
        try:
            why_not = store.why_unusable(connection)
        except sqlite3.Error as error:
            why_not = f"can't be read ({error})"
        yield why_not or _look(connection)


def _look(connection: sqlite3.Connection) -> Look:
    rows = connection.execute("SELECT * FROM line ORDER BY offset")
    return Look(store.taken_in(connection), (mark for row in rows if (mark := lines.mark_of(row))))


def learnt(path: Path, name: str) -> str | None:
    """The value last learnt under ``name``; None where there is none, or no ledger that can be read."""
    try:
        with closing(store.open_reader(path)) as connection:
            row = connection.execute("SELECT value FROM learnt WHERE name = ?", (name,)).fetchone()
    except sqlite3.Error:
        return None
    return row[0] if row else None
