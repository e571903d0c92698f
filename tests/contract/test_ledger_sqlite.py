"""What is SQLite's own: the file's mode, damage, other releases, accounts, a full disk."""

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import pytest

from pipeline.errors import StopForHuman
from pipeline.ledger.api import Intent, Mark, RunLedger, Upload
from pipeline.ledger.sqlite import open_sqlite_ledger
from pipeline.records import FileState, RemoteFile, Status

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@asynccontextmanager
async def opened(path: Path, warnings: list[str], *, key_hash: str = "k") -> AsyncIterator[RunLedger]:
    async with open_sqlite_ledger(path, endpoint="https://e", key_hash=key_hash, warn=warnings.append) as ledger:
        yield ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


async def test_files_are_private_and_the_wal_is_gone_at_the_end(path: Path) -> None:
    """While open, every file of the ledger has mode 0600; closing leaves the one file."""
    async with opened(path, []) as ledger:
        await ledger.settle("x")
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
        assert set(modes.values()) == {0o600}
        assert len(modes) == 3
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", ["garbage", "header", "page", "other version"])
async def test_an_unusable_ledger_is_moved_aside(path: Path, damage: str) -> None:
    """A ledger that is damaged or of another release is kept aside, begun anew, and that is said."""
    async with opened(path, []) as ledger:
        for n in range(2000):
            await ledger.learn(f"name{n}", "value", NOW)
    content = bytearray(path.read_bytes())
    if damage == "garbage":
        content = bytearray(os.urandom(len(content)))
    elif damage == "header":
        content[:16] = bytes(16)
    elif damage == "page":
        content[-4096 * 4 :] = b"\xff" * 4096 * 4
    else:
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA user_version = 999")
        content = bytearray(path.read_bytes())
    path.write_bytes(content)
    warnings: list[str] = []
    async with opened(path, warnings) as ledger:
        assert await ledger.learnt("name1", NOW) is None
    aside = next(path.parent.glob("ledger.sqlite3.aside-*"))
    assert aside.read_bytes() == bytes(content)
    assert len(warnings) == 1
    assert "moved to" in warnings[0]


async def test_uploads_belong_to_an_account(path: Path) -> None:
    """Another key of the same endpoint does not see, touch or forget this key's uploads."""
    file = RemoteFile(name="files/a", uri="u", mime_type="image/png", size_bytes=1, state=FileState.ACTIVE)
    mine = Upload(sha256="00", file=file, last_used_at=NOW)
    async with opened(path, []) as ledger:
        await ledger.remember_upload(mine)
    async with opened(path, [], key_hash="other") as ledger:
        assert not [upload async for upload in ledger.uploads()]
        await ledger.forget_uploads(["files/a"])
    async with opened(path, []) as ledger:
        assert [upload async for upload in ledger.uploads()] == [mine]


async def test_a_symbolic_link_is_refused(path: Path, tmp_path: Path) -> None:
    """A ledger that is a symbolic link is not followed."""
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StopForHuman, match="ledger"):
        async with opened(path, []):
            pass
    assert not (tmp_path / "elsewhere").exists()


FILL = """
import asyncio, resource, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from pipeline.errors import StopForHuman
from pipeline.ledger.sqlite import open_sqlite_ledger

async def main():
    async with open_sqlite_ledger(Path(sys.argv[1]), endpoint="e", key_hash="k", warn=print) as ledger:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        for n in range(2000):
            await ledger.learn(str(n), "x" * 1000, datetime.now(UTC))

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    asyncio.run(main())
except StopForHuman as stop:
    print("STOPPED", stop)
"""


def test_a_full_disk_stops_for_a_human(path: Path) -> None:
    """When the file can't grow, the run ends with a sentence and the ledger opens again with what it had."""
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(path)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("STOPPED "), done.stderr
    assert "run again" in done.stdout
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM learnt").fetchone()[0] > 10


async def test_an_error_of_one_operation_is_not_swallowed(path: Path) -> None:
    """A key that SQLite can't store fails its caller and those after it, without a hang."""
    async with opened(path, []) as ledger:
        with pytest.raises(UnicodeEncodeError):
            await ledger.intend(Intent(key="\udcff", attempt=1, started_at=NOW))


def test_the_schema_ships_with_the_package() -> None:
    """Both scripts are found as package resources."""
    for name in ("schema.sql", "run_schema.sql"):
        assert "TABLE" in resources.files("pipeline.ledger").joinpath(name).read_text()


@pytest.mark.parametrize("is_looked_into", [False, True])
async def test_after_a_rebuild_the_ledger_is_a_wal_again(path: Path, *, is_looked_into: bool) -> None:
    """The rollback journal of a rebuild is gone afterwards, also where a reader prevented it or the rebuild failed."""

    def failing() -> Iterator[Mark]:
        yield marks[0]
        raise EOFError

    marks = [
        Mark(
            key=str(number), status=Status.SUCCEEDED, fingerprint=None, kind=None, retryable=False, emulated=False,
            offset=number, size_bytes=1,
        )
        for number in range(250)
    ]  # fmt: skip
    async with opened(path, []) as ledger:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("SELECT * FROM line").fetchall()
            if not is_looked_into:
                other.close()
            await ledger.rebuild(iter(marks))
        with pytest.raises(EOFError):
            await ledger.rebuild(failing())
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert other.execute("SELECT count(*) FROM line").fetchone() == (250,)
        assert await ledger.extents() == [(0, 250)]
    assert not path.with_name(path.name + "-journal").exists()
