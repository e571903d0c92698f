"""The run folder and its commit: recovery, locks, permissions, compaction, full disks, reading from outside."""

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline.clock import SystemClock
from pipeline.errors import ExitCode, Failure, RunLocked, StopForHuman, UsageError
from pipeline.events import Event, ItemCommitted
from pipeline.ledger.api import Candidate, Intent, Offset
from pipeline.ledger.memory import MemoryLedger
from pipeline.ledger.peek import doubts
from pipeline.ledger.sqlite import open_sqlite_ledger
from pipeline.records import Answer, Item, Outcome, Status, Usage
from pipeline.results import compaction, durable
from pipeline.results.compaction import compact, gaps
from pipeline.results.filesystem import bad_mount
from pipeline.results.reading import standing
from pipeline.results.record import mark_of
from pipeline.results.run_folder import RunFolder, open_run_folder
from pipeline.results.stage import ResultsRoom
from pipeline.spec import RunSpec, Selection, SourceSpec

NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
OPEN_LEDGER = partial(open_sqlite_ledger, endpoint="https://e", key_hash="k", warn=print)


def item(key: str) -> Item:
    return Item(
        key=key, position=0, line=None, model="m", media=(), prompt="p", prompt_sha256="s", fingerprint="v1:" + key
    )


def outcome(key: str, text: str = "an answer", failure: Failure | None = None) -> Outcome:
    return Outcome(
        subject=item(key),
        status=Status.FAILED if failure else Status.SUCCEEDED,
        answer=Answer(text=text, usage=Usage(total_tokens=5)),
        failure=failure,
        started_at=NOW,
        finished_at=NOW,
    )


def wrong_row(key: str) -> Outcome:
    return outcome(key, failure=Failure(stage="manifest", kind="bad_row", message="no key"))


@asynccontextmanager
async def opened(path: Path, **fields: Any) -> AsyncIterator[RunFolder]:
    given = {"source_name": "/photos", "source": SourceSpec(path=None), **fields}
    async with open_run_folder(RunSpec(output=path, **given), open_ledger=OPEN_LEDGER, clock=SystemClock()) as folder:
        yield folder


class Watcher:
    """Keeps what was committed."""

    def __init__(self) -> None:
        self.events: list[ItemCommitted] = []
        self.outcomes: list[Outcome] = []

    def notify(self, event: Event) -> None:
        assert isinstance(event, ItemCommitted)
        self.events.append(event)


async def commit(folder: RunFolder, *outcomes: Outcome, backend: str = "gemini") -> Watcher:
    watcher = Watcher()
    room = ResultsRoom(folder, backend=backend, observer=watcher, on_committed=watcher.outcomes.append)
    send, receive = anyio.create_memory_object_stream[Outcome](len(outcomes))
    for one in outcomes:
        send.send_nowait(one)
    send.close()
    await room.run(receive)
    return watcher


async def run(path: Path, *outcomes: Outcome, **fields: Any) -> None:
    """One whole run that commits these."""
    async with opened(path, **fields) as folder:
        await commit(folder, *outcomes)
        await compact(folder, source_was_read=True)


def keys(path: Path) -> list[str]:
    """Keys of the lines, all of which must be whole."""
    content = (path / "results.jsonl").read_bytes()
    assert content == b"" or content.endswith(b"\n")
    return [json.loads(line)["key"] for line in content.split(b"\n")[:-1]]


def texts(path: Path) -> dict[str, str]:
    content = (path / "results.jsonl").read_bytes()
    return {line["key"]: line["text"] for line in map(json.loads, content.split(b"\n")[:-1])}


async def known(folder: RunFolder, *wanted: str) -> list[bool]:
    answers = await folder.ledger.admit([Candidate(key=key, position=n) for n, key in enumerate(wanted)])
    return [answer.mark is not None for answer in answers]


async def test_what_is_committed_is_on_disk_known_and_acknowledged_in_order(tmp_path: Path) -> None:
    """Every outcome becomes a line, a mark, an event and a call back, in the order in which they came."""
    async with opened(tmp_path / "run") as folder:
        watcher = await commit(folder, outcome("a"), outcome("b"), outcome("a", "newer"))
        assert keys(tmp_path / "run") == ["a", "b", "a"]
        assert [event.key for event in watcher.events] == ["a", "b", "a"]
        assert [one.subject.key for one in watcher.outcomes] == ["a", "b", "a"]
        answers = await folder.ledger.admit([Candidate(key="a", position=0)])
        assert answers[0].mark is not None
        assert answers[0].mark.offset > 0


async def test_nothing_is_acknowledged_before_it_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the call back comes, the sync of that line has returned and the ledger knows it."""
    synced: list[int] = []
    real = durable.sync_data

    def sync(fd: int) -> None:
        real(fd)
        synced.append(os.fstat(fd).st_size)

    async with opened(tmp_path / "run") as folder:
        monkeypatch.setattr(durable, "sync_data", sync)
        seen: list[int] = []
        room = ResultsRoom(folder, backend="gemini", observer=Watcher(), on_committed=lambda _: seen.append(synced[-1]))
        send, receive = anyio.create_memory_object_stream[Outcome](2)
        send.send_nowait(outcome("a"))
        send.close()
        await room.run(receive)
        assert seen == [(tmp_path / "run/results.jsonl").stat().st_size]


@pytest.mark.parametrize("ledger_knows", ["nothing", "the first line"])
async def test_a_torn_tail_at_every_byte(tmp_path: Path, ledger_knows: str) -> None:
    """Cut anywhere in the last record, also inside a character: the earlier line stays, the cut one is redone once."""
    path = tmp_path / "run"
    text = "h\u00e9llo \U0001f600"
    await run(path, outcome("a"), outcome("b", text))
    whole = (path / "results.jsonl").read_bytes()
    start = whole.index(b"\n") + 1
    spec = RunSpec(output=path, source_name="/photos", source=SourceSpec(path=None))
    for cut in range(start, len(whole)):
        (path / "results.jsonl").write_bytes(whole[:cut])
        ledger = MemoryLedger()
        if ledger_knows == "the first line":
            inode = (path / "results.jsonl").stat().st_ino
            await ledger.mark([mark_of(whole[: start - 1], 0)], Offset(inode=inode, size_bytes=start, mtime_ns=0))
        async with open_run_folder(spec, open_ledger=lambda _: nullcontext(ledger), clock=SystemClock()) as folder:  # noqa: B023
            is_whole = cut == len(whole) - 1
            assert await known(folder, "a", "b") == [True, is_whole]
            if not is_whole:
                await commit(folder, outcome("b", text))
        assert keys(path) == ["a", "b"]
        torn = list(path.glob("results.jsonl.torn-*"))
        assert [file.read_bytes() for file in torn] == ([] if is_whole or cut == start else [whole[start:cut]])
        for file in torn:
            file.unlink()


@pytest.mark.parametrize("tail", [bytes(5000), b'{"key":"b"' + bytes(10), b"\xff\xfe\n\n\x00garbage", b"\n\n"])
async def test_a_tail_of_zeros_or_garbage_is_moved_aside(tmp_path: Path, tail: bytes) -> None:
    """What a power cut leaves behind the last line is cut, and kept beside."""
    path = tmp_path / "run"
    await run(path, outcome("a"))
    with (path / "results.jsonl").open("ab") as file:
        file.write(tail)
    async with opened(path) as folder:
        assert folder.recovered
        assert await known(folder, "a") == [True]
    assert keys(path) == ["a"]
    assert [file.read_bytes() for file in path.glob("results.jsonl.torn-*")] == [tail]


@pytest.mark.parametrize("ledger", ["kept", "deleted"])
async def test_a_damaged_middle_is_refused(tmp_path: Path, ledger: str) -> None:
    """A bad line before a good one stops the run, names the way out, and changes nothing."""
    path = tmp_path / "run"
    await run(path, outcome("a"), outcome("b"), outcome("c"))
    content = bytearray((path / "results.jsonl").read_bytes())
    content[content.index(b"\n") + 5] = 0
    (path / "results.jsonl").write_bytes(content)
    if ledger == "deleted":
        (path / "ledger.sqlite3").unlink()
    with pytest.raises(StopForHuman, match=r"pipeline verify .*run --repair"):
        await run(path)
    assert (path / "results.jsonl").read_bytes() == bytes(content)


async def test_a_damaged_last_line_that_was_durable_is_no_torn_tail(tmp_path: Path) -> None:
    """What the ledger knows to be durable is never cut."""
    path = tmp_path / "run"
    await run(path, outcome("a"), outcome("b"))
    content = (path / "results.jsonl").read_bytes()
    with (path / "results.jsonl").open("r+b") as file:
        file.seek(len(content) - 5)
        file.write(b"\0\0")
    with pytest.raises(StopForHuman, match="--repair"):
        await run(path)
    assert (path / "results.jsonl").stat().st_size == len(content)


@pytest.mark.parametrize("loss", ["deleted", "copied folder", "older", "corrupt"])
async def test_the_ledger_follows_the_file(tmp_path: Path, loss: str) -> None:
    """Without a ledger, with one of another file, or with one that is behind, every line is known again."""
    path = tmp_path / "run"
    await run(path, outcome("a"))
    older = (path / "ledger.sqlite3").read_bytes()
    await run(path, outcome("b"))
    if loss == "deleted":
        (path / "ledger.sqlite3").unlink()
    elif loss == "older":
        (path / "ledger.sqlite3").write_bytes(older)
    elif loss == "corrupt":
        (path / "ledger.sqlite3").write_bytes(b"\0garbage" * 1000)
    else:
        content = (path / "results.jsonl").read_bytes()
        (path / "other").write_bytes(content)
        (path / "other").replace(path / "results.jsonl")
    async with opened(path) as folder:
        assert folder.recovered
        assert await known(folder, "a", "b", "c") == [True, True, False]
    async with opened(path) as folder:
        assert not folder.recovered


async def test_lines_that_the_ledger_missed_close_their_intents(tmp_path: Path) -> None:
    """A kill between the sync and the ledger leaves no item in doubt whose line is there."""
    path = tmp_path / "run"
    async with opened(path) as folder:
        for key in ("a", "b"):
            await folder.ledger.intend(Intent(key=key, attempt=1, started_at=NOW))
    before = (path / "ledger.sqlite3").read_bytes()
    await run(path, outcome("a"))
    (path / "ledger.sqlite3").write_bytes(before)
    async with opened(path) as folder:
        assert await folder.ledger.in_doubt() == ["b"]


async def test_modes(tmp_path: Path) -> None:
    """A new folder is 0700 and its files 0600; an existing one keeps its mode; a world-writable one is refused."""
    path = tmp_path / "deep" / "run"
    await run(path, outcome("a"), outcome("a"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600}
    path.chmod(0o755)
    await run(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    path.chmod(0o777)
    with pytest.raises(UsageError, match="chmod"):
        await run(path)


async def test_one_folder_is_opened_once(tmp_path: Path) -> None:
    """A second run is refused: by the same path, by a symbolic link to the folder, by a hard link to the results."""
    path = tmp_path / "run"
    (tmp_path / "link").symlink_to(path)
    async with opened(path):
        (tmp_path / "twin").mkdir(mode=0o700)
        (tmp_path / "twin" / "results.jsonl").hardlink_to(path / "results.jsonl")
        for other in (path, tmp_path / "link", tmp_path / "twin"):
            with anyio.fail_after(1), pytest.raises(RunLocked) as caught:
                async with opened(other):
                    pass
            assert caught.value.exit_code == ExitCode.LOCKED
    async with opened(path):
        pass


@pytest.mark.parametrize("name", ["results.jsonl", "run.lock", "ledger.sqlite3"])
async def test_symbolic_links_are_not_followed(tmp_path: Path, name: str) -> None:
    """A file of the folder that is a symbolic link stops the run, and what it names is not touched."""
    path = tmp_path / "run"
    path.mkdir()
    (tmp_path / "elsewhere").write_bytes(b"mine")
    (path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StopForHuman):
        await run(path)
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"


async def test_output_that_is_a_file(tmp_path: Path) -> None:
    """A run folder that is a file is a mistake of usage."""
    (tmp_path / "run").write_bytes(b"")
    with pytest.raises(UsageError, match="--output"):
        await run(tmp_path / "run")


async def test_emulated_and_real_answers(tmp_path: Path) -> None:
    """The emulator is refused where a real answer lies; a real run may take over the emulator's folder."""
    path = tmp_path / "run"
    emulated = Selection(emulated=True)
    async with opened(path, selection=emulated) as folder:
        await commit(folder, outcome("a"), backend="emulator")
    async with opened(path, selection=emulated) as folder:
        answers = await folder.ledger.admit([Candidate(key="a", position=0)])
        assert answers[0].mark is not None
        assert answers[0].mark.emulated
    await run(path, outcome("a"))
    with pytest.raises(UsageError, match="--emulator"):
        await run(path, selection=emulated)


@pytest.mark.parametrize("memory", ["ledger", "summary"])
async def test_a_folder_remembers_its_source(tmp_path: Path, memory: str) -> None:
    """Another SOURCE is refused by the default output only, also where only summary.json remembers."""
    path = tmp_path / "run"
    await run(path)
    if memory == "summary":
        (path / "ledger.sqlite3").unlink()
        (path / "summary.json").write_text('{"source": "/photos", "exit_code": 0}')
    await run(path, output_is_default=True)
    if memory == "summary":
        (path / "ledger.sqlite3").unlink()
    with pytest.raises(UsageError, match="/photos"):
        await run(path, source_name="/other", output_is_default=True)
    await run(path, source_name="/other")


async def test_compaction_keeps_the_last_line_of_each_key_in_order(tmp_path: Path) -> None:
    """Replaced lines move to superseded.jsonl, the ledger follows, and there is nothing to do afterwards."""
    path = tmp_path / "run"
    async with opened(path) as folder:
        await commit(folder, outcome("a", "1"), outcome("b", "1"), outcome("a", "2"), outcome("c", "1"))
        assert await compact(folder, source_was_read=True)
        await commit(folder, outcome("d", "1"))
        assert not await compact(folder, source_was_read=True)
    assert keys(path) == ["b", "a", "c", "d"]
    assert texts(path)["a"] == "2"
    assert [json.loads(line)["text"] for line in (path / "superseded.jsonl").read_text().splitlines()] == ["1"]
    async with opened(path) as folder:
        assert not folder.recovered


async def test_a_crash_before_the_ledger_hears_of_a_compaction(tmp_path: Path) -> None:
    """With the ledger of before the compaction, the new file is found out by its inode and read."""
    path = tmp_path / "run"
    async with opened(path) as folder:
        await commit(folder, outcome("a", "1"), outcome("b"), outcome("a", "2"))
    before = (path / "ledger.sqlite3").read_bytes()
    await run(path)
    (path / "ledger.sqlite3").write_bytes(before)
    async with opened(path) as folder:
        assert folder.recovered
        assert await known(folder, "a", "b") == [True, True]
        assert not await compact(folder, source_was_read=True)
    assert texts(path) == {"b": "an answer", "a": "2"}


async def test_lines_of_wrong_rows_vanish_when_source_was_read(tmp_path: Path) -> None:
    """They go when a later run read SOURCE to its end without meeting them, and stay otherwise."""
    path = tmp_path / "run"
    await run(path, outcome("a"), wrong_row("line:2"), wrong_row("a#line:3"))
    assert keys(path) == ["a", "line:2", "a#line:3"]
    async with opened(path) as folder:
        await commit(folder, wrong_row("a#line:3"))
        await compact(folder, source_was_read=False)
    assert keys(path) == ["a", "line:2", "a#line:3"]
    async with opened(path) as folder:
        await known(folder, "line:2")
        await compact(folder, source_was_read=True)
    assert keys(path) == ["a", "line:2"]


def failing_steps() -> Iterator[tuple[str, int]]:
    """Every call into the system that a compaction makes, by name and turn."""
    for name, turns in {"write_all": 2, "sync_data": 2, "sync_folder": 2, "replace": 1, "lock": 1}.items():
        for turn in range(turns):
            yield name, turn


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("step", "turn"), list(failing_steps()))
async def test_a_crash_at_each_step_of_compaction_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, turn: int, when: str
) -> None:
    """Die just before or after any step: the next run finds each key's last line, and compacts again."""

    class Crash(BaseException):
        pass

    path = tmp_path / "run"
    expected = {"a": "2", "b": "1", "c": "1"}

    with pytest.raises(Crash):  # noqa: PT012
        async with opened(path) as folder:
            await commit(folder, outcome("a", "1"), outcome("b", "1"), outcome("a", "2"), outcome("c", "1"))
            owner: Any = {"replace": Path, "lock": compaction.results_file}.get(step, durable)
            real, calls = getattr(owner, step), iter(range(100))

            def crashing(*arguments: Any) -> Any:
                now = next(calls) == turn
                if now and when == "before":
                    raise Crash
                result = real(*arguments)
                if now:
                    raise Crash
                return result

            monkeypatch.setattr(owner, step, crashing)
            await compact(folder, source_was_read=True)
    monkeypatch.undo()
    assert texts(path) == expected
    async with opened(path) as folder:
        assert await known(folder, "a", "b", "c") == [True] * 3
        await compact(folder, source_was_read=False)
    assert sorted(keys(path)) == ["a", "b", "c"]
    assert texts(path) == expected
    assert not list(path.glob("*.compacting"))


@pytest.mark.parametrize(
    ("extents", "left_out"), [([], [(0, 9)]), ([(0, 9)], []), ([(2, 4), (6, 9)], [(0, 2), (4, 6)])]
)
def test_gaps(extents: list[tuple[int, int]], left_out: list[tuple[int, int]]) -> None:
    """What extents leave out of nine bytes."""
    assert gaps(extents, 9) == left_out


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
            send, receive = anyio.create_memory_object_stream[Outcome](1)
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


FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_results_folder as t
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
    arguments = [str(tmp_path / "run"), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", FULL, *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("STOPPED No space left"), done.stderr
    assert 10 < len(keys(tmp_path / "run")) < 18


async def test_cancelling_commits_what_was_paid_for(tmp_path: Path) -> None:
    """A cancelled room still commits the outcomes that wait in its stream."""
    send, receive = anyio.create_memory_object_stream[Outcome](10)

    def more_and_cancel(committed: Outcome) -> None:
        if committed.subject.key == "a":
            for key in "bcd":
                send.send_nowait(outcome(key))
            scope.cancel()

    async with opened(tmp_path / "run") as folder:
        room = ResultsRoom(folder, backend="gemini", observer=Watcher(), on_committed=more_and_cancel)
        with send, anyio.CancelScope() as scope:
            send.send_nowait(outcome("a"))
            await room.run(receive)
        assert scope.cancelled_caught
    assert keys(tmp_path / "run") == ["a", "b", "c", "d"]


async def test_standing_is_told_during_and_after_a_run(tmp_path: Path) -> None:
    """Counts are of current lines; calls that are out are in doubt only once no run goes on."""
    path = tmp_path / "run"
    look = partial(standing, path, doubts=doubts)
    async with opened(path) as folder:
        timeout = Failure(stage="generation", kind="timeout", message="", retryable=True)
        await commit(folder, outcome("a", failure=timeout), outcome("b", failure=timeout), outcome("a"))
        await folder.ledger.intend(Intent(key="out", attempt=1, started_at=NOW))
        now = await anyio.to_thread.run_sync(look)
        assert (now.run_is_on, now.succeeded, now.failed, now.retryable) == (True, 1, {"timeout": 1}, 1)
        assert (now.usage.total_tokens, now.in_doubt) == (10, [])
    assert (look().run_is_on, look().in_doubt) == (False, ["out"])
    with (path / "results.jsonl").open("ab") as file:  # a kill came between the line and its mark
        file.write(b'{"key":"out","status":"succeeded","backend":"gemini"}\n{"key":"torn')
    assert (look().succeeded, look().in_doubt) == (2, [])
    (path / "ledger.sqlite3").unlink()
    assert (look().succeeded, look().in_doubt) == (2, [])


def test_standing_of_an_empty_folder(tmp_path: Path) -> None:
    """A folder without results stands at nothing."""
    assert standing(tmp_path, doubts=doubts).succeeded == 0


@pytest.mark.parametrize(
    ("folder", "is_bad"),
    [
        ("/data/run", False),
        ("/nfs/run", False),
        ("/nfs local/run", True),
        ("/nfs local/disk/run", False),
        ("/smb/x", True),
    ],
)
def test_mounts_whose_locks_are_local(folder: str, is_bad: bool) -> None:
    """The deepest mount decides, by its type and options."""
    mounts = (
        "/dev/a / ext4 rw 0 0\nh:/ /nfs nfs4 rw,vers=4 0 0\nh:/ /nfs\\040local nfs rw,nolock 0 0\n"
        "/dev/b /nfs\\040local/disk ext4 rw 0 0\n//h/s /smb cifs rw,nobrl 0 0\n"
    )
    assert bool(bad_mount(mounts, Path(folder))) is is_bad
