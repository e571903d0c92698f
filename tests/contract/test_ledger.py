"""One contract, two ledgers: what every ledger must do, in memory and in SQLite."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from pipeline.ledger.api import Candidate, Intent, Mark, Offset, RunLedger, Upload
from pipeline.ledger.memory import MemoryLedger
from pipeline.ledger.sqlite import open_sqlite_ledger
from pipeline.records import Content, FileIdentity, FileState, Item, Media, RemoteFile, Status

NOW = datetime(2026, 11, 22, 2, 30, 0, 123456, tzinfo=UTC)
AT = Offset(inode=7, size_bytes=1000, mtime_ns=5)
Open = Callable[[], AbstractAsyncContextManager[RunLedger]]


@pytest.fixture(params=["memory", "sqlite"])
def open_ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same ledger for one run after another."""
    memory = MemoryLedger()

    @asynccontextmanager
    async def open_memory() -> AsyncIterator[RunLedger]:
        memory.next_run()
        yield memory

    def warn(message: str) -> None:
        raise AssertionError(message)

    if request.param == "memory":
        return open_memory
    return lambda: open_sqlite_ledger(tmp_path / "ledger.sqlite3", endpoint="https://e", key_hash="k", warn=warn)


@pytest.fixture
async def ledger(open_ledger: Open) -> AsyncIterator[RunLedger]:
    """A ledger open for the whole test: by a task of its own, since a fixture begins and ends in different ones."""
    is_open, is_done = asyncio.get_running_loop().create_future(), asyncio.Event()

    async def hold() -> None:
        async with open_ledger() as opened:
            is_open.set_result(opened)
            await is_done.wait()

    holder = asyncio.create_task(hold())
    yield await is_open
    is_done.set()
    await holder


def mark(key: str, offset: int = 0, size_bytes: int = 10, **fields: Any) -> Mark:
    given: dict[str, Any] = {
        "status": Status.SUCCEEDED,
        "fingerprint": "v1:" + key,
        "kind": None,
        "retryable": False,
        "emulated": False,
        **fields,
    }
    return Mark(key=key, offset=offset, size_bytes=size_bytes, **given)


def item(key: str, attempts_before: int = 0) -> Item:
    identity = FileIdentity(size_bytes=1, mtime_ns=2, ctime_ns=3, inode=4)
    location = "/m/\udcff.jpg"
    media = Media(path="a.jpg", location=location, mime_type="image/jpeg", size_bytes=1, sha256="00", identity=identity)
    return Item(
        key=key, position=0, line=1, model="m", media=(media,), prompt="p", prompt_sha256="x", fingerprint="f",
        generation={"temperature": 0.5}, labels=("Image 1:",), attempts_before=attempts_before,
    )  # fmt: skip


def upload(name: str, used: datetime) -> Upload:
    file = RemoteFile(
        name=name, uri="https://e/" + name, mime_type="image/png", size_bytes=3, state=FileState.ACTIVE, expires_at=NOW
    )
    return Upload(sha256="ab", file=file, last_used_at=used)


async def test_admit_answers_in_order_with_marks_and_duplicates(ledger: RunLedger) -> None:
    """Each candidate gets its own answer: its mark, and whether another position came first with its key."""
    known = mark("b", 10, kind="timeout", retryable=True, status=Status.FAILED, ambiguous_runs=2, media_sha256="m")
    await ledger.mark([known], AT)
    answers = await ledger.admit([Candidate(key=k, position=p) for p, k in enumerate(["z", "b", "a", "b"])])
    assert [a.duplicate for a in answers] == [False, False, False, True]
    assert [a.mark for a in answers] == [None, known, None, known]


async def test_the_same_position_is_no_duplicate_of_itself(ledger: RunLedger) -> None:
    """A row offered twice, as in a later pass, is no duplicate; another row with its key is, in any later batch."""
    await ledger.admit([Candidate(key="a", position=1)])
    again, other = await ledger.admit([Candidate(key="a", position=1), Candidate(key="a", position=2)])
    assert (again.duplicate, other.duplicate) == (False, True)


async def test_what_was_seen_is_forgotten_with_the_run(open_ledger: Open) -> None:
    """The next run may meet a key at another position without calling it a duplicate."""
    async with open_ledger() as ledger:
        await ledger.admit([Candidate(key="a", position=1)])
    async with open_ledger() as ledger:
        assert not (await ledger.admit([Candidate(key="a", position=9)]))[0].duplicate


async def test_keys_are_opaque(ledger: RunLedger) -> None:
    """Keys with NUL, newline, quotes, percent, emoji, NFC and NFD forms stay apart and come back as they were."""
    keys = [
        "a\0b",
        "a\0c",
        "a\nb",
        "'; DROP TABLE line; --",
        "%s",
        "\N{GRINNING FACE}",
        "\u00e9",
        "e\u0301",
        " ",
        "A",
        "a",
    ]
    await ledger.mark([mark(k, 10 * i) for i, k in enumerate(keys)], AT)
    answers = await ledger.admit([Candidate(key=k, position=i) for i, k in enumerate(keys)])
    assert [a.mark.key for a in answers if a.mark] == keys
    assert not any(a.duplicate for a in answers)


async def test_later_marks_replace_earlier_ones_and_survive(open_ledger: Open) -> None:
    """The last mark of a key is current, within a batch and across runs, and the offset is kept with it."""
    async with open_ledger() as ledger:
        await ledger.mark([mark("a", 0), mark("b", 10), mark("a", 20, fingerprint="new")], AT)
    async with open_ledger() as ledger:
        answer = (await ledger.admit([Candidate(key="a", position=0)]))[0]
        assert answer.mark == mark("a", 20, fingerprint="new")
        assert await ledger.taken_in() == AT


async def test_count_removed_ignores_wrong_rows(ledger: RunLedger) -> None:
    """Keys with a line that SOURCE no longer has are counted, lines of wrong rows are not."""
    await ledger.mark([mark("a", 0), mark("b", 10), mark("line:3", 20, wrong_row=True)], AT)
    await ledger.admit([Candidate(key="a", position=0), Candidate(key="new", position=1)])
    assert await ledger.count_removed() == 1


async def test_intents_left_open_put_their_items_in_doubt(open_ledger: Open) -> None:
    """What an earlier run left open is in doubt; what it settled or committed is not, nor what this run has out."""
    async with open_ledger() as ledger:
        for key in ("settled", "marked", "left"):
            await ledger.intend(Intent(key=key, attempt=1, started_at=NOW))
        await ledger.settle("settled")
        await ledger.mark([mark("marked")], AT)
        assert await ledger.in_doubt() == []
        assert await ledger.open_intents() == ["left"]
    async with open_ledger() as ledger:
        assert await ledger.in_doubt() == ["left"]
        await ledger.intend(Intent(key="out", attempt=1, started_at=NOW))
        answers = await ledger.admit([Candidate(key=k, position=i) for i, k in enumerate(["left", "out", "settled"])])
        assert [a.in_doubt for a in answers] == [True, False, False]
        assert await ledger.open_intents() == ["left", "out"]
        await ledger.mark([mark("left")], AT)
        assert await ledger.in_doubt() == []


async def test_a_new_call_takes_the_place_of_a_doubtful_one(open_ledger: Open) -> None:
    """When this run sends an item that was in doubt, the new intent replaces the old."""
    async with open_ledger() as ledger:
        await ledger.intend(Intent(key="a", attempt=1, started_at=NOW))
    async with open_ledger() as ledger:
        await ledger.intend(Intent(key="a", attempt=1, started_at=NOW))
        assert await ledger.in_doubt() == []
        await ledger.settle("a")
        assert await ledger.open_intents() == []


async def test_uploads_come_oldest_use_first(open_ledger: Open) -> None:
    """Uploads are remembered whole, touched, forgotten, and listed by last use, across runs."""
    async with open_ledger() as ledger:
        for days, name in enumerate(["files/c", "files/b", "files/a"]):
            await ledger.remember_upload(upload(name, NOW + timedelta(days=days)))
        await ledger.touch_uploads([(name, NOW + timedelta(days=9)) for name in ("files/c", "files/unknown")])
        await ledger.forget_uploads(["files/b", "files/unknown"])
    async with open_ledger() as ledger:
        expected = [upload("files/a", NOW + timedelta(days=2)), upload("files/c", NOW + timedelta(days=9))]
        assert [upload async for upload in ledger.uploads()] == expected


async def test_uploads_may_be_forgotten_while_they_are_read(open_ledger: Open) -> None:
    """More than are read at once, and many of one moment: each comes once."""
    async with open_ledger() as ledger:
        names = [f"files/{number:04d}" for number in range(1100)]
        for name in names:
            await ledger.remember_upload(upload(name, NOW))
        read = []
        async for one in ledger.uploads():
            read.append(one.file.name)
            await ledger.forget_uploads([one.file.name])
        assert read == names
        assert not [one async for one in ledger.uploads()]


async def test_uploads_are_found_by_their_content(open_ledger: Open) -> None:
    """The same bytes as another type are another content; the latest use comes first."""
    async with open_ledger() as ledger:
        old, new, other = (upload(f"files/{name}", NOW + timedelta(days=day)) for day, name in enumerate("abc"))
        other = msgspec.structs.replace(other, sha256="11")
        for one in (old, new, other):
            await ledger.remember_upload(one)
        mime_type = old.file.mime_type
        assert await ledger.uploads_of([Content("11", mime_type), Content("22", mime_type)]) == [other]
        assert await ledger.uploads_of([Content(old.sha256, mime_type)]) == [new, old]
        assert await ledger.uploads_of([Content(old.sha256, "video/mp4")]) == []


async def test_identities_are_known_again(open_ledger: Open) -> None:
    """A hash remembered for a path, even one that is no Unicode, is found by a worker thread, also in the next run."""
    identity = FileIdentity(size_bytes=5, mtime_ns=2**62, ctime_ns=3, inode=4)
    async with open_ledger() as ledger:
        await ledger.remember_identities([("/m/\udcff.jpg", identity, "image/jpeg", "00ff")])
    async with open_ledger() as ledger:
        known = await anyio.to_thread.run_sync(ledger.identities.known, ["/m/other", "/m/\udcff.jpg"])
        assert known == {"/m/\udcff.jpg": (identity, "image/jpeg", "00ff")}


async def test_requeued_items_come_once_in_order(ledger: RunLedger) -> None:
    """Items kept for the next pass come whole, in order, once; those kept meanwhile wait for the pass after."""
    kept = [item(f"k{n}", attempts_before=n) for n in range(250)]
    for requeued in kept:
        await ledger.requeue(requeued)
    taken = []
    async for requeued in ledger.requeued():
        if not taken:
            await ledger.requeue(kept[0])
        taken.append(requeued)
    assert taken == kept
    assert [requeued async for requeued in ledger.requeued()] == kept[:1]
    assert [requeued async for requeued in ledger.requeued()] == []


async def test_learnt_values_age(open_ledger: Open) -> None:
    """A learnt value is found while it is young enough, and the latest one wins."""
    async with open_ledger() as ledger:
        await ledger.learn("rpm", "60", NOW - timedelta(hours=30))
        await ledger.learn("rpm", "90", NOW)
    async with open_ledger() as ledger:
        assert await ledger.learnt("rpm", NOW) == "90"
        assert await ledger.learnt("rpm", NOW + timedelta(microseconds=1)) is None
        assert await ledger.learnt("tpm", NOW) is None


async def test_rebuild_replaces_every_line_and_later_duplicates_win(ledger: RunLedger) -> None:
    """After a rebuild only the given lines are known, the last of each key, and intents are untouched."""
    await ledger.mark([mark("old", 500)], AT)
    await ledger.intend(Intent(key="a", attempt=1, started_at=NOW))
    await ledger.rebuild(mark(key, 10 * n) for n, key in enumerate("abcab"))
    assert await ledger.taken_in() is None
    answers = await ledger.admit([Candidate(key=k, position=i) for i, k in enumerate(["a", "b", "c", "old"])])
    assert [a.mark and a.mark.offset for a in answers] == [30, 40, 20, None]
    assert await ledger.open_intents() == ["a"]


async def test_extents_join_neighbours_and_pack_closes_gaps(ledger: RunLedger) -> None:
    """The stretches of current lines are told; packing moves each line to where the ones before it end."""
    await ledger.mark([mark("a", 0, 10), mark("b", 10, 5), mark("c", 40, 10), mark("d", 50, 1), mark("e", 60, 2)], AT)
    assert await ledger.extents() == [(0, 15), (40, 51), (60, 62)]
    new = Offset(inode=8, size_bytes=28, mtime_ns=6)
    await ledger.pack(new)
    assert await ledger.extents() == [(0, 28)]
    assert await ledger.taken_in() == new
    answers = await ledger.admit([Candidate(key=k, position=i) for i, k in enumerate("abcde")])
    assert [a.mark and a.mark.offset for a in answers] == [0, 10, 15, 25, 26]


async def test_extents_of_nothing(ledger: RunLedger) -> None:
    """An empty ledger has no extents, and packing it does no harm."""
    assert await ledger.extents() == []
    await ledger.pack(AT)
    assert await ledger.extents() == []


async def test_drop_wrong_rows_spares_this_run(ledger: RunLedger) -> None:
    """Lines of wrong rows vanish unless this run admitted their key or wrote them itself."""
    await ledger.mark([mark(f"line:{n}", 10 * n, wrong_row=True) for n in range(4)] + [mark("a", 40)], AT)
    await ledger.admit([Candidate(key="line:1", position=0)])
    assert await ledger.drop_wrong_rows(before=30) == 2
    assert await ledger.extents() == [(10, 20), (30, 50)]


async def test_holds_real_lines(ledger: RunLedger) -> None:
    """Only a line of another backend than the emulator is a real one."""
    await ledger.mark([mark("a", 0, emulated=True)], AT)
    assert not await ledger.holds_real_lines()
    await ledger.mark([mark("b", 10)], AT)
    assert await ledger.holds_real_lines()


async def test_many_tasks_at_once(ledger: RunLedger) -> None:
    """Hundreds of tasks that intend, settle and admit at once neither block nor mix up each other."""

    async def work(n: int) -> None:
        await ledger.intend(Intent(key=str(n), attempt=1, started_at=NOW))
        answers = await ledger.admit([Candidate(key=str(n), position=n)])
        assert not answers[0].duplicate
        if n % 2:
            await ledger.settle(str(n))

    async with anyio.create_task_group() as tasks:
        for n in range(300):
            tasks.start_soon(work, n)
    assert await ledger.open_intents() == sorted(str(n) for n in range(0, 300, 2))
