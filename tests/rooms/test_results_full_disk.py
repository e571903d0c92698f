"""What happens in the folder when a disk fails: salvage, compaction, log and summary, each whole or not at all."""

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline.errors import StopForHuman, StopRun
from pipeline.events import Warned
from pipeline.records import Outcome
from pipeline.report import jsonlog
from pipeline.report.jsonlog import JsonLog
from pipeline.results import durable, salvage
from pipeline.results.compaction import compact
from pipeline.results.stage import ResultsRoom
from pipeline.streams import Stream
from pipeline.whole import append_whole, replace_file
from tests.rooms.run_folders import Watcher, commit, keys, known, opened, outcome, run, texts

FULL = OSError(errno.ENOSPC, "No space left on device")


def refusing(path: Path, real: Callable[..., Any]) -> Callable[..., Any]:
    """``os.write``, but for this file, which is full."""

    def write(fd: int, data: bytes) -> int:
        if path.exists() and os.fstat(fd).st_ino == path.stat().st_ino:
            raise FULL
        return int(real(fd, data))

    return write


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of the system's temporary files."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(path))
    return path


async def test_what_comes_after_a_failed_commit_is_salvaged_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first failure is told at once, later answers are kept though nothing is acknowledged, and none is lost."""
    path = tmp_path / "run"
    told: list[StopRun] = []
    watcher = Watcher()
    async with opened(path) as folder:
        monkeypatch.setattr(os, "write", refusing(path / "results.jsonl", os.write))
        room = ResultsRoom(
            folder, backend="gemini", observer=watcher, on_committed=watcher.outcomes.append, on_stop=told.append
        )
        send, receive = Stream[Outcome](1).ends()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_one_by_one, send, told)
            with anyio.fail_after(10), pytest.raises(StopForHuman, match="No space left"):
                await room.run(receive)
        assert not folder.is_sound
    monkeypatch.undo()
    assert len(told) == 1
    assert watcher.events == watcher.outcomes == []
    async with opened(path) as folder:
        assert await known(folder, "a", "b", "c") == [True] * 3
    assert sorted(keys(path)) == ["a", "b", "c"]


async def send_one_by_one(send: Any, told: list[StopRun]) -> None:
    """Three outcomes, the later ones when the first has failed."""
    async with send:
        await send.send(outcome("a"))
        while not told:
            await anyio.lowlevel.checkpoint()
        await send.send(outcome("b"))
        await send.send(outcome("c"))


async def test_a_ledger_that_fails_costs_no_line(tmp_path: Path) -> None:
    """Lines go on to results.jsonl without the ledger, nothing is compacted by a ledger that is behind."""
    path = tmp_path / "run"

    async def failing(*_: Any) -> None:
        raise StopForHuman("No space left for the ledger")

    with pytest.raises(StopForHuman, match="the ledger"):  # noqa: PT012
        async with opened(path) as folder:
            await commit(folder, outcome("a"), outcome("a", "newer"))
            mark, folder.ledger.mark = folder.ledger.mark, failing  # type: ignore[method-assign]
            try:
                await commit(folder, outcome("b"), outcome("c"))
            finally:
                folder.ledger.mark = mark  # type: ignore[method-assign]
                assert not await compact(folder, source_was_read=False)
    assert keys(path) == ["a", "a", "b", "c"]
    async with opened(path) as folder:
        await compact(folder, source_was_read=False)
    assert texts(path) == {"a": "newer", "b": "an answer", "c": "an answer"}


async def test_answers_are_kept_elsewhere_where_the_run_folder_has_no_room(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie in a private folder among the temporary files, which the next run of this run folder empties."""
    path = tmp_path / "run"
    await run(path, outcome("a"))
    line = (path / "results.jsonl").read_bytes().replace(b'"key":"a"', b'"key":"b"')
    real = durable.write_new_file

    def full(file: Path, data: bytes) -> None:
        if file.parent == path:
            raise FULL
        real(file, data)

    monkeypatch.setattr(durable, "write_new_file", full)
    kept = salvage.keep(path, "now", line)
    assert kept.is_relative_to(temporary)
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert salvage.files_in(tmp_path / "another") == []
    async with opened(path) as folder:
        assert await known(folder, "b") == [True]
    assert list(temporary.iterdir()) == []


async def test_a_place_that_others_can_write_to_is_not_trusted(tmp_path: Path, temporary: Path) -> None:
    """Lines that somebody else may have put there are not taken in."""
    path = tmp_path / "run"
    await run(path, outcome("a"))
    place = salvage.elsewhere(path)
    place.mkdir()
    place.chmod(0o777)
    (place / "salvage-1.jsonl").write_bytes((path / "results.jsonl").read_bytes())
    assert salvage.files_in(path) == []


@pytest.mark.parametrize("file", ["superseded.jsonl", "results.jsonl.compacting"])
async def test_a_compaction_without_room_stops_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """Every result stays, no half line is left in superseded.jsonl, and the next run compacts."""
    path = tmp_path / "run"
    with pytest.raises(StopForHuman, match="to compact"):  # noqa: PT012
        async with opened(path) as folder:
            await commit(folder, outcome("a", "1"), outcome("b"), outcome("a", "2"))
            monkeypatch.setattr(os, "write", refusing(path / file, os.write))
            await compact(folder, source_was_read=False)
    monkeypatch.undo()
    if file == "superseded.jsonl":
        assert (path / file).read_bytes() == b""
    assert texts(path) == {"a": "2", "b": "an answer"}
    await run(path)
    assert keys(path) == ["b", "a"]


@pytest.mark.parametrize("lie", [0, 1, 5])
def test_a_write_that_is_not_done_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: int) -> None:
    """A disk that takes fewer bytes than it says, or none, leaves the file as it was."""
    file = tmp_path / "file"
    file.write_bytes(b"whole\n")
    real = os.write

    def lying(fd: int, data: bytes) -> int:
        return 0 if lie == 0 else real(fd, bytes(data)[lie:]) + lie

    fd = os.open(file, os.O_RDWR | os.O_APPEND)
    monkeypatch.setattr(os, "write", lying)
    with pytest.raises(OSError, match=r"instead of|No space"):
        append_whole(fd, b"another\n", 6)
    os.close(fd)
    assert file.read_bytes() == b"whole\n"


def test_a_file_is_replaced_or_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replacement that fails leaves the old file, and nothing beside it."""
    file = tmp_path / "summary.json"
    replace_file(file, b"old")
    monkeypatch.setattr(os, "write", refusing(tmp_path / "summary.tmp", os.write))
    with pytest.raises(OSError, match="No space"):
        replace_file(file, b"new")
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"summary.json": b"old"}


def test_a_log_that_fails_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is told may log that at once; what was written before stays whole, and nothing more is written."""
    path, told = tmp_path / "run.log", []

    def tell(sentence: str) -> None:
        told.append(sentence)
        log.notify(Warned(message=sentence))

    log = JsonLog(path, secrets=(), verbose=False, on_failure=tell)
    log.write("first", {})
    monkeypatch.setattr(os, "write", refusing(path, os.write))
    log.write("second", {})
    monkeypatch.undo()
    log.write("third", {})
    log.close()
    assert len(told) == 1
    assert "run.log" in told[0]
    assert [json.loads(line)["action"] for line in path.read_bytes().splitlines()] == ["first"]


def test_the_log_rotates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its size the log begins anew; five older ones are kept, all private, no line is lost between them."""
    monkeypatch.setattr(jsonlog, "ROTATE_BYTES", 300)
    log = JsonLog(tmp_path / "run.log", secrets=(), verbose=False)
    for number in range(40):
        log.write("tick", {"number": number})
    log.close()
    names = ["run.log.5", "run.log.4", "run.log.3", "run.log.2", "run.log.1", "run.log"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    written = [json.loads(line)["number"] for name in names for line in (tmp_path / name).read_bytes().splitlines()]
    assert written == list(range(written[0], 40))
    assert all((tmp_path / name).stat().st_size <= 300 for name in names)


@pytest.mark.parametrize("fault", ["sync fails", "short write"])
async def test_a_failed_commit_ends_the_run_and_keeps_the_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A failed sync is not tried again, nothing is acknowledged, and the next run takes the salvaged lines in."""
    path = tmp_path / "run"
    await run(path, outcome("a"))
    tries = []

    def no_sync(fd: int) -> None:
        if os.fstat(fd).st_ino != (path / "results.jsonl").stat().st_ino:
            return os.fdatasync(fd)
        tries.append(fd)
        raise OSError(errno.EIO, "I/O error")

    def short(fd: int, data: Any) -> int:
        if os.fstat(fd).st_ino != (path / "results.jsonl").stat().st_ino:
            return real_write(fd, data)
        tries.append(fd)
        if len(tries) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(fd, data[:50])

    real_write = os.write
    watcher = Watcher()
    with pytest.raises(StopForHuman, match=r"answers since then are kept in .*run until"):  # noqa: PT012
        async with opened(path) as folder:
            if fault == "sync fails":
                monkeypatch.setattr(durable, "sync_data", no_sync)
            else:
                monkeypatch.setattr(os, "write", short)
            room = ResultsRoom(folder, backend="gemini", observer=watcher, on_committed=watcher.outcomes.append)
            send, receive = Stream[Outcome](1).ends()
            send.send_nowait(outcome("b"))
            send.close()
            with anyio.fail_after(10):
                await room.run(receive)
    monkeypatch.undo()
    assert len(tries) == (1 if fault == "sync fails" else 2)
    assert watcher.events == watcher.outcomes == []
    assert (path / "results.jsonl").read_bytes().endswith(b"\n")
    async with opened(path) as folder:
        assert folder.recovered
        assert await known(folder, "a", "b") == [True, True]
        await compact(folder, source_was_read=True)
    assert keys(path) == ["a", "b"]
    assert not list(path.glob("salvage-*"))


IN_A_SMALL_FILE = """
import asyncio, resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.rooms import run_folders as t
from pipeline.errors import StopForHuman

async def main():
    async with t.opened(Path(sys.argv[1])) as folder:
        await t.commit(folder, t.outcome("a"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        for n in range(1000):
            await t.commit(folder, t.outcome(str(n), "x" * 60_000))

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    asyncio.run(main())
except StopForHuman as stop:
    print("STOPPED", stop)
"""


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """Where the file can't grow (a true short write), the run stops with a sentence and every line is whole."""
    arguments = [str(tmp_path / "run"), str(Path(__file__).parents[2])]
    done = subprocess.run(
        [sys.executable, "-c", IN_A_SMALL_FILE, *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("STOPPED No space left"), done.stderr
    assert 10 < len(keys(tmp_path / "run")) < 18
