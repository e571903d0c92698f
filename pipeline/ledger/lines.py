"""The table ``line``: a mark becomes a row and a row a mark, one at a time or a million."""

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any

import msgspec

from pipeline.ledger.api import Mark
from pipeline.records import Status

ROWS_A_STATEMENT = 100
"""A step of SQLite for each row would take as long again as the rows do."""

PUT_LINE = "REPLACE INTO line VALUES (?, ?, ?, ?, ?, ?)"
_PUT_LINES = PUT_LINE + ", (?, ?, ?, ?, ?, ?)" * (ROWS_A_STATEMENT - 1)
_INDEX_BY_KEY = "CREATE UNIQUE INDEX line_by_key ON line (key)"
_KEEP_LAST_OF_EACH_KEY = "DELETE FROM line WHERE offset NOT IN (SELECT max(offset) FROM line GROUP BY key)"
_PACK = """
CREATE TEMP TABLE packed AS
SELECT
    key, sum(size_bytes) OVER (ORDER BY offset ROWS UNBOUNDED PRECEDING) - size_bytes,
    size_bytes, emulated, wrong_row, detail
FROM line ORDER BY offset
"""

Row = tuple[str, int, int, int, int, bytes]


class _Detail(msgspec.Struct, array_like=True, frozen=True):
    """``line.detail``; of a plain success only the first two are kept."""

    fingerprint: str | None
    media_sha256: str | None
    status: Status = Status.SUCCEEDED
    kind: str | None = None
    retryable: bool = False
    ambiguous_runs: int = 0


_encode_detail = msgspec.msgpack.Encoder().encode
_decode_detail = msgspec.msgpack.Decoder(_Detail).decode


def replace_all(db: sqlite3.Connection, marks: Iterable[Mark]) -> None:
    """``marks`` instead of all that the table holds; the last of each key is current."""
    db.execute("DROP INDEX line_by_key")
    db.execute("DELETE FROM line")
    rows = map(row_of, marks)
    while batch := list(islice(rows, ROWS_A_STATEMENT)):
        if len(batch) == ROWS_A_STATEMENT:
            db.execute(_PUT_LINES, list(chain.from_iterable(batch)))
        else:
            db.executemany(PUT_LINE, batch)
    try:
        db.execute(_INDEX_BY_KEY)
    except sqlite3.IntegrityError:
        db.execute(_KEEP_LAST_OF_EACH_KEY)
        db.execute(_INDEX_BY_KEY)


def pack(db: sqlite3.Connection) -> None:
    """Each line now begins where the one before it ends. All of them anew: moving a row takes four times as long."""
    db.execute(_PACK)
    db.execute("DROP INDEX line_by_key")
    db.execute("DELETE FROM line")
    db.execute("INSERT INTO line SELECT * FROM packed")
    db.execute("DROP TABLE packed")
    db.execute(_INDEX_BY_KEY)


def row_of(mark: Mark) -> Row:
    """The row of ``line``. Of SQLite's own types exactly: it takes three times as long over a bool or an enum."""
    detail: tuple[Any, ...] = (mark.fingerprint, mark.media_sha256)
    if mark.status is not Status.SUCCEEDED or mark.ambiguous_runs:
        detail += (mark.status, mark.kind, mark.retryable, mark.ambiguous_runs)
    return (
        mark.key,
        mark.offset,
        mark.size_bytes,
        1 if mark.emulated else 0,
        1 if mark.wrong_row else 0,
        _encode_detail(detail),
    )


def mark_of(row: Sequence[Any]) -> Mark | None:
    """The mark of a row of ``line``; None where its columns are all NULL."""
    key, offset, size_bytes, emulated, wrong_row, packed = row
    if key is None:
        return None
    detail = _decode_detail(packed)
    return Mark(
        key=key,
        status=detail.status,
        fingerprint=detail.fingerprint,
        kind=detail.kind,
        retryable=detail.retryable,
        emulated=bool(emulated),
        offset=offset,
        size_bytes=size_bytes,
        ambiguous_runs=detail.ambiguous_runs,
        media_sha256=detail.media_sha256,
        wrong_row=bool(wrong_row),
    )
