"""Opens ledger.sqlite3, moves aside one that can't be used, and says SQLite's errors in our words."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pipeline.errors import StopForHuman
from pipeline.ledger.api import Offset
from pipeline.whole import disk_trouble

SCHEMA_VERSION = 2
BUSY_TIMEOUT_SECONDS = 10.0
CACHE_KIB = 32 * 1024
RUN_CACHE_KIB = 16 * 1024
"""For the temporary tables; what does not fit lies in a file that the system throws away."""
PAGE_BYTES = 8192
JOURNAL_LIMIT_BYTES = 64 * 1024 * 1024

_UNUSABLE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class UnknownSchema(Exception):
    """The ledger was written by another release."""


def open_store(path: Path) -> tuple[sqlite3.Connection, str | None]:
    """Open the ledger for writing, creating it where there is none.

    It is a cache: one that is damaged or of another release is moved aside and begun anew, and the second value is a
    sentence about that.
    """
    with in_our_words(path), disk_trouble(path):
        try:
            return _open(path), None
        except UnknownSchema:
            reason = "was written by another release"
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            reason = "is damaged"
        aside = _move_aside(path)
        return _open(path), f"{path.name} {reason}: moved to {aside.name} and rebuilt from results.jsonl"


def close_store(connection: sqlite3.Connection) -> None:
    """Put everything into the one file, if that can be done now: the WAL is as good until the next time."""
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with suppress(sqlite3.Error):
        connection.close()


@contextmanager
def transaction(connection: sqlite3.Connection, kind: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE") -> Iterator[None]:
    """All that the body does, or nothing; a deferred one reads as of one moment."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def without_wal(connection: sqlite3.Connection) -> Iterator[None]:
    """A rollback journal while the body runs: a great many new rows are then written once, not twice.

    It stays the WAL where somebody looks into the ledger just now.
    """
    _set(connection, "busy_timeout", 0)
    with suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode = DELETE")
    _set(connection, "busy_timeout", round(BUSY_TIMEOUT_SECONDS * 1000))
    try:
        yield
    finally:
        connection.execute("PRAGMA journal_mode = WAL")


@contextmanager
def in_our_words(path: Path) -> Iterator[None]:
    """SQLite's errors, said by ``translated``."""
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error, path) from error


def open_reader(path: Path, *, at_rest: bool = False) -> sqlite3.Connection:
    """A second connection, which can't write; ``at_rest`` promises that nobody does, and leaves no file behind."""
    uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if at_rest else ''}"
    return sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=BUSY_TIMEOUT_SECONDS)


def why_unusable(connection: sqlite3.Connection) -> str | None:
    """What is wrong with the database of a reader, as the rest of a sentence about the file."""
    if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
        return "was written by another release"
    return None if _is_whole(connection) else "is damaged"


def taken_in(connection: sqlite3.Connection) -> Offset | None:
    """How much of which results.jsonl the ledger speaks of."""
    row = connection.execute("SELECT inode, size_bytes, mtime_ns FROM taken_in").fetchone()
    return Offset(inode=row[0], size_bytes=row[1], mtime_ns=row[2]) if row else None


def _is_whole(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is not, or no longer, a database."""
    return _primary_code(error) in _UNUSABLE


def translated(error: sqlite3.Error, path: Path) -> Exception:
    """``error`` as a sentence for the user, or itself where it is a bug of ours."""
    code = _primary_code(error)
    if code == sqlite3.SQLITE_FULL:
        return StopForHuman(f"No space left for {path}: free some, then run again")
    if code in _UNUSABLE:
        return StopForHuman(f"{path} is damaged: delete it (results.jsonl has every result), then run again")
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return StopForHuman(f"Can't write {path} ({error}): see to the disk and the permissions, then run again")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StopForHuman(f"Another program holds {path} ({error}): end it, then run again")
    return error


def _open(path: Path) -> sqlite3.Connection:
    _create_private(path)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_SECONDS)
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    _set(connection, "page_size", PAGE_BYTES)  # of a new file
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    _set(connection, "cache_size", -CACHE_KIB)
    _set(connection, "journal_size_limit", JOURNAL_LIMIT_BYTES)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0 and not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
        connection.executescript(f"BEGIN;{_script('schema.sql')}PRAGMA user_version = {SCHEMA_VERSION:d};COMMIT;")
    elif version != SCHEMA_VERSION:
        raise UnknownSchema
    elif not _is_whole(connection):
        raise _damage()
    _set(connection, "temp.cache_size", -RUN_CACHE_KIB)
    connection.execute("PRAGMA temp.journal_mode = MEMORY")  # a journal file took most of the time of `seen`
    connection.executescript(_script("run_schema.sql"))
    _set(connection, "secure_delete", 0)  # Debian's SQLite writes zeros over whatever is deleted
    connection.execute("UPDATE intent SET earlier = 1")


def _set(connection: sqlite3.Connection, pragma: str, value: int) -> None:
    connection.execute(f"PRAGMA {pragma} = {value:d}")  # pragmas take no placeholders; both are constants of ours


def _damage() -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError("quick_check failed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _create_private(path: Path) -> None:
    """Make the file before SQLite does, for its mode and to refuse a symbolic link; WAL and shm take its mode."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        os.close(os.open(path, flags, 0o600))
    except OSError as error:
        raise StopForHuman(f"Can't open {path} ({error.strerror}): mend or delete it, then run again") from error


def _move_aside(path: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    aside = path.with_name(f"{path.name}.aside-{stamp}")
    for suffix in ("-journal", "-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(aside.with_name(aside.name + suffix))
    return aside


def _script(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _primary_code(error: sqlite3.Error) -> int:
    """The low byte of the extended code; 1 (a plain error) where Python gives none."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
