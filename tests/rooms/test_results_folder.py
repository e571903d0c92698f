"""The run folder and its commit: recovery, locks, permissions, what it remembers."""

import os
import stat
from contextlib import closing, nullcontext
from pathlib import Path

import anyio
import pytest

from pipeline.clock import SystemClock
from pipeline.errors import ExitCode, RunLocked, StopForHuman, UsageError
from pipeline.ledger.api import Candidate, Intent, Offset
from pipeline.ledger.memory import MemoryLedger
from pipeline.records import Outcome
from pipeline.results import durable
from pipeline.results.filesystem import bad_mount
from pipeline.results.record import mark_of
from pipeline.results.run_folder import open_run_folder
from pipeline.results.stage import ResultsRoom
from pipeline.spec import RunSpec, Selection, SourceSpec
from pipeline.streams import Stream
from tests.rooms.run_folders import NOW, Watcher, commit, keys, known, opened, outcome, run


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
        send, receive = Stream[Outcome](2).ends()
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


async def test_cancelling_commits_what_was_paid_for(tmp_path: Path) -> None:
    """A cancelled room still commits the outcomes that wait in its stream."""
    send, receive = Stream[Outcome](10).ends()

    def more_and_cancel(committed: Outcome) -> None:
        if committed.subject.key == "a":
            for key in "bcd":
                send.send_nowait(outcome(key))
            scope.cancel()

    async with opened(tmp_path / "run") as folder:
        room = ResultsRoom(folder, backend="gemini", observer=Watcher(), on_committed=more_and_cancel)
        with closing(send), anyio.CancelScope() as scope:
            send.send_nowait(outcome("a"))
            await room.run(receive)
        assert scope.cancelled_caught
    assert keys(tmp_path / "run") == ["a", "b", "c", "d"]


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
