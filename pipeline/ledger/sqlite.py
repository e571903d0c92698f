"""The ledger in SQLite: one writing connection, used by one thread at a time, group-committed."""

import json
import os
import sqlite3
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from anyio import CancelScope
from anyio.to_thread import run_sync

from pipeline.errors import StopForHuman
from pipeline.group_commit import CommitTimeout, GroupCommit
from pipeline.ledger import lines, store
from pipeline.ledger.api import Admission, Candidate, Intent, Mark, Offset, Upload, join_extents
from pipeline.records import Content, FileIdentity, Item, RemoteFile

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], Any]

REQUEUED_AT_ONCE = 100
UPLOADS_AT_ONCE = 500
IDENTITIES_AT_ONCE = 128
"""Asked for together: a statement each would lock and unlock the database each time."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_ADMIT = """
SELECT seen.position <> candidate.position, intent.earlier IS 1, line.*
FROM candidate JOIN seen USING (key) LEFT JOIN line USING (key) LEFT JOIN intent USING (key)
ORDER BY candidate.ordinal
"""
_KNOWN = f"SELECT * FROM identity WHERE location IN ({', '.join('?' * IDENTITIES_AT_ONCE)})"  # noqa: S608 - no input


@asynccontextmanager
async def open_sqlite_ledger(
    path: Path, *, endpoint: str, key_hash: str, warn: Callable[[str], None]
) -> AsyncIterator["SqliteLedger"]:
    """Open the ledger at ``path`` for one run; its uploads are those of this endpoint and key."""
    connection, warning = await run_sync(store.open_store, path)
    if warning:
        warn(warning)
    try:
        with store.in_our_words(path):
            opened = store.open_reader(path)
        with closing(opened) as reader:
            ledger = SqliteLedger(path, connection, reader, endpoint=endpoint, key_hash=key_hash)
            async with ledger.committer.running():
                yield ledger
    finally:
        with CancelScope(shield=True):
            await run_sync(store.close_store, connection)


class SqliteIdentities:
    """Reads hashes on a connection of its own, for worker threads that must not wait for a commit."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._lock = threading.Lock()

    def known(self, locations: Sequence[str]) -> dict[str, tuple[FileIdentity, str, str]]:
        found = {}
        with self._lock, store.in_our_words(self._path):
            for start in range(0, len(locations), IDENTITIES_AT_ONCE):
                asked = {os.fsencode(location): location for location in locations[start : start + IDENTITIES_AT_ONCE]}
                nobodys = [None] * (IDENTITIES_AT_ONCE - len(asked))  # which no location equals
                for row in self._connection.execute(_KNOWN, [*asked, *nobodys]):
                    stored, size_bytes, mtime_ns, ctime_ns, inode, mime_type, sha256 = row
                    identity = FileIdentity(size_bytes=size_bytes, mtime_ns=mtime_ns, ctime_ns=ctime_ns, inode=inode)
                    found[asked[stored]] = (identity, mime_type, sha256)
        return found


class SqliteLedger:
    """A ``RunLedger`` on ledger.sqlite3; see ``schema.sql``. Made by ``open_sqlite_ledger``."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, reader: sqlite3.Connection, *, endpoint: str, key_hash: str
    ) -> None:
        self._path = path
        self._connection = connection
        self._connection_lock = threading.Lock()
        self._account = (endpoint, key_hash)
        self.identities = SqliteIdentities(path, reader)
        self.committer = GroupCommit[Operation, Any](self._commit)

    def _commit(self, operations: Sequence[Operation]) -> list[Any]:
        with self._connection_lock, store.in_our_words(self._path), store.transaction(self._connection):
            return [operation(self._connection) for operation in operations]

    async def _do(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        try:
            result: T = await self.committer.submit(operation)
        except CommitTimeout as timeout:
            raise self._silence(timeout) from timeout
        return result

    def _post(self, operation: Operation) -> None:
        """For what is needed only by those who write something later."""
        try:
            self.committer.post(operation)
        except CommitTimeout as timeout:
            raise self._silence(timeout) from timeout

    def _silence(self, timeout: CommitTimeout) -> StopForHuman:
        return StopForHuman(f"{self._path}: {timeout}: see to the disk, then run again")

    async def _do_at_length(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """For what may take minutes and is alone: not in a group, and without its deadline."""
        [result] = await run_sync(self._commit, [operation])
        answer: T = result
        return answer

    # the done-set

    async def admit(self, candidates: Sequence[Candidate]) -> list[Admission]:
        rows = [(ordinal, c.key, c.position) for ordinal, c in enumerate(candidates)]

        def operation(db: sqlite3.Connection) -> list[Admission]:
            db.execute("DELETE FROM candidate")
            db.executemany("INSERT INTO candidate VALUES (?, ?, ?)", rows)
            db.execute("INSERT OR IGNORE INTO seen SELECT key, position FROM candidate ORDER BY ordinal")
            return [
                Admission(duplicate=bool(duplicate), in_doubt=bool(in_doubt), mark=lines.mark_of(line))
                for duplicate, in_doubt, *line in db.execute(_ADMIT)
            ]

        return await self._do(operation)

    async def mark(self, marks: Sequence[Mark], offset: Offset) -> None:
        rows = [lines.row_of(mark) for mark in marks]
        keys = [(mark.key,) for mark in marks]

        def operation(db: sqlite3.Connection) -> None:
            db.executemany(lines.PUT_LINE, rows)
            db.executemany("DELETE FROM intent WHERE key = ?", keys)
            _take_in(db, offset)

        await self._do(operation)

    async def count_removed(self) -> int:
        query = "SELECT count(*) FROM line WHERE NOT wrong_row AND key NOT IN (SELECT key FROM seen)"
        return await self._do(lambda db: int(db.execute(query).fetchone()[0]))

    # calls

    async def intend(self, intent: Intent) -> None:
        row = (intent.key, intent.attempt, _microseconds(intent.started_at))
        await self._do(lambda db: db.execute("REPLACE INTO intent VALUES (?, ?, ?, 0)", row))

    async def settle(self, key: str) -> None:
        await self._do(lambda db: db.execute("DELETE FROM intent WHERE key = ?", (key,)))

    async def in_doubt(self) -> list[str]:
        return await self._keys("SELECT key FROM intent WHERE earlier ORDER BY key")

    async def open_intents(self) -> list[str]:
        return await self._keys("SELECT key FROM intent ORDER BY key")

    async def _keys(self, query: str) -> list[str]:
        return await self._do(lambda db: [key for (key,) in db.execute(query)])

    # uploads

    async def remember_upload(self, upload: Upload) -> None:
        file = msgspec.json.encode(upload.file)
        row = (*self._account, upload.file.name, upload.sha256, file, _microseconds(upload.last_used_at))
        self._post(lambda db: db.execute("REPLACE INTO upload VALUES (?, ?, ?, ?, ?, ?)", row))

    async def forget_uploads(self, names: Sequence[str]) -> None:
        statement = "DELETE FROM upload WHERE endpoint = ? AND key_hash = ? AND name = ?"
        rows = [(*self._account, name) for name in names]
        await self._do(lambda db: db.executemany(statement, rows))

    async def touch_uploads(self, used: Sequence[tuple[str, datetime]]) -> None:
        statement = "UPDATE upload SET last_used_at_us = ? WHERE endpoint = ? AND key_hash = ? AND name = ?"
        rows = [(_microseconds(used_at), *self._account, name) for name, used_at in used]
        await self._do(lambda db: db.executemany(statement, rows))

    async def uploads(self) -> AsyncGenerator[Upload]:
        query = """
            SELECT sha256, file, last_used_at_us, name FROM upload
            WHERE endpoint = ? AND key_hash = ? AND (last_used_at_us, name) > (?, ?)
            ORDER BY last_used_at_us, name LIMIT ?
        """
        last: tuple[int, str] = (-(2**63), "")
        while rows := await self._do(partial(_rows, query, (*self._account, *last, UPLOADS_AT_ONCE))):
            for row in rows:
                yield _upload(*row[:3])
            last = rows[-1][2:]

    async def uploads_of(self, contents: Sequence[Content]) -> list[Upload]:
        query = """
            SELECT sha256, file, last_used_at_us FROM upload
            WHERE endpoint = ? AND key_hash = ? AND sha256 = ? ORDER BY last_used_at_us DESC, name DESC
        """
        wanted = set(contents)
        arguments = [(*self._account, sha256) for sha256 in {content.sha256 for content in wanted}]
        rows = await self._do(lambda db: [row for given in arguments for row in db.execute(query, given)])
        return [upload for row in rows if ((upload := _upload(*row)).sha256, upload.file.mime_type) in wanted]

    # files on this machine

    async def remember_identities(self, found: Sequence[tuple[str, FileIdentity, str, str]]) -> None:
        rows = [
            (os.fsencode(location), *msgspec.structs.astuple(identity), mime_type, sha256)
            for location, identity, mime_type, sha256 in found
        ]
        await self._do(lambda db: db.executemany("REPLACE INTO identity VALUES (?, ?, ?, ?, ?, ?, ?)", rows))

    # passes

    async def requeue(self, item: Item) -> None:
        # Not msgspec's encoder: a location may hold bytes that are no Unicode, which only escapes can carry.
        encoded = json.dumps(msgspec.to_builtins(item))
        await self._do(lambda db: db.execute("INSERT INTO requeued (item) VALUES (?)", (encoded,)))

    async def requeued(self) -> AsyncIterator[Item]:
        last = await self._do(lambda db: db.execute("SELECT max(ordinal) FROM requeued").fetchone()[0])

        def take(db: sqlite3.Connection) -> list[tuple[int, str]]:
            query = "SELECT ordinal, item FROM requeued WHERE ordinal <= ? ORDER BY ordinal LIMIT ?"
            rows: list[tuple[int, str]] = db.execute(query, (last, REQUEUED_AT_ONCE)).fetchall()
            db.executemany("DELETE FROM requeued WHERE ordinal = ?", [(ordinal,) for ordinal, _ in rows])
            return rows

        while last is not None and (rows := await self._do(take)):
            for _, encoded in rows:
                yield msgspec.convert(json.loads(encoded), Item)

    # what is learnt

    async def learnt(self, name: str, not_before: datetime) -> str | None:
        query = "SELECT value FROM learnt WHERE name = ? AND at_us >= ?"
        arguments = (name, _microseconds(not_before))
        row = await self._do(lambda db: db.execute(query, arguments).fetchone())
        return row[0] if row else None

    async def learn(self, name: str, value: str, at: datetime) -> None:
        row = (name, value, _microseconds(at))
        await self._do(lambda db: db.execute("REPLACE INTO learnt VALUES (?, ?, ?)", row))

    # the run folder's side

    async def taken_in(self) -> Offset | None:
        return await self._do(store.taken_in)

    async def rebuild(self, marks: Iterable[Mark]) -> None:
        await run_sync(self._rebuild, marks)

    def _rebuild(self, marks: Iterable[Mark]) -> None:
        db = self._connection
        with self._connection_lock, store.in_our_words(self._path), store.without_wal(db), store.transaction(db):
            db.execute("DELETE FROM taken_in")
            lines.replace_all(db, marks)

    async def holds_real_lines(self) -> bool:
        query = "SELECT EXISTS (SELECT 1 FROM line WHERE NOT emulated)"
        return await self._do_at_length(lambda db: bool(db.execute(query).fetchone()[0]))

    async def drop_wrong_rows(self, before: int) -> int:
        statement = "DELETE FROM line WHERE wrong_row AND offset < ? AND key NOT IN (SELECT key FROM seen)"
        return await self._do_at_length(lambda db: db.execute(statement, (before,)).rowcount)

    async def extents(self) -> list[tuple[int, int]]:
        query = "SELECT offset, size_bytes FROM line ORDER BY offset"
        return await self._do_at_length(lambda db: join_extents(db.execute(query)))

    async def pack(self, offset: Offset) -> None:
        def operation(db: sqlite3.Connection) -> None:
            lines.pack(db)
            _take_in(db, offset)

        await self._do_at_length(operation)


def _take_in(db: sqlite3.Connection, offset: Offset) -> None:
    db.execute("DELETE FROM taken_in")
    db.execute("INSERT INTO taken_in VALUES (?, ?, ?)", msgspec.structs.astuple(offset))


def _rows(query: str, arguments: Sequence[Any], db: sqlite3.Connection) -> list[Any]:
    return db.execute(query, arguments).fetchall()


def _upload(sha256: str, file: bytes, used_at_us: int) -> Upload:
    return Upload(sha256=sha256, file=msgspec.json.decode(file, type=RemoteFile), last_used_at=_moment(used_at_us))


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
