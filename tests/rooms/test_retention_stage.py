"""Files in the storage: what is freed is not what somebody needs, and of very many the ledger alone knows most."""

from typing import Any, cast

import anyio
import pytest

from pipeline.clock import ManualClock
from pipeline.events import Observers
from pipeline.gemini.api import FilesApi
from pipeline.ledger.api import Upload
from pipeline.ledger.memory import MemoryLedger
from pipeline.records import Content, RemoteFile
from pipeline.retention.budget import PUT_AT_ONCE, StorageBudget
from pipeline.retention.stage import DELETIONS_AT_ONCE, Retention
from tests.support.builders import NOW, remote

FILES = 2 * PUT_AT_ONCE
MOST_IDLE = 10


class Service:
    """The File API, as far as deleting goes."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.deleted: list[str] = []
        self.answers = anyio.Event()
        self.answers.set()

    async def delete(self, name: str) -> None:
        self.asked.append(name)
        await self.answers.wait()
        self.deleted.append(name)


def content(number: int) -> Content:
    return Content(f"{number:064x}", "image/jpeg")


def file(number: int) -> RemoteFile:
    return remote(f"files/{number:04d}", size_bytes=1)


class Storage:
    """A retention room over a storage of a byte a file, and what it stands on."""

    def __init__(self, ledger: MemoryLedger, capacity_bytes: int, *, keep: bool = True) -> None:
        self.service, self.clock, self.ledger = Service(), ManualClock(NOW), ledger
        self.budget = StorageBudget(capacity_bytes, most_idle=MOST_IDLE if keep else None)
        self.room = Retention(
            budget=self.budget,
            files=cast("FilesApi", self.service),
            ledger=ledger,
            clock=self.clock,
            observer=Observers(),
            keep=keep,
            wait_seconds=1.0,
        )

    async def use(self, number: int) -> bool:
        """As one item does: claim, upload where need be, release. Whether the file was there."""
        await self.room.claim({content(number): 1})
        self.clock.advance(0.001)
        was_there = self.room.known(content(number)) is not None
        if not was_there:
            await self.room.stored(content(number), file(number))
        self.room.release([content(number)])
        return was_there


@pytest.fixture(params=["the same run", "the next run"])
async def storage(request: pytest.FixtureRequest) -> Any:
    """One in which very many files lie, used in their order."""
    filled = Storage(MemoryLedger(), FILES)
    for number in range(FILES):
        assert not await filled.use(number)
    if request.param == "the same run":
        return filled
    opened = Storage(filled.ledger, FILES)
    await opened.room.open()
    return opened


async def test_few_are_kept_in_mind(storage: Storage) -> None:
    """And all of them count."""
    held = sum(storage.budget.holds(content(number)) for number in range(FILES))
    assert held <= MOST_IDLE + PUT_AT_ONCE
    assert storage.budget.stored_bytes == FILES


async def test_a_file_out_of_mind_is_used_again(storage: Storage) -> None:
    """It is not uploaded a second time, and does not count a second time."""
    assert await storage.use(0)
    assert storage.budget.stored_bytes == FILES
    assert not storage.service.deleted


async def test_the_oldest_uses_make_room(storage: Storage) -> None:
    """Not the file that was used again just now, though it was uploaded first of all."""
    assert await storage.use(0)
    await storage.room.claim({content(number): 1 for number in range(FILES, FILES + 3)})
    assert storage.service.deleted == ["files/0001", "files/0002", "files/0003"]
    assert storage.budget.used_bytes == FILES
    left = [upload.file.name async for upload in storage.ledger.uploads()]
    assert len(left) == FILES - 3


async def test_what_the_ledger_lost_does_not_count_for_ever(storage: Storage) -> None:
    """A claim that must wait for files out of mind finds that there are none, and goes on with those that are."""
    gone = [f"files/{number:04d}" for number in range(FILES) if not storage.budget.holds(content(number))]
    assert gone
    await storage.ledger.forget_uploads(gone)
    await storage.room.claim({content(FILES): FILES})
    assert len(storage.service.deleted) == FILES - len(gone)
    assert storage.budget.used_bytes == FILES


async def test_expired_uploads_are_forgotten_when_the_room_opens() -> None:
    """However many."""
    ledger = MemoryLedger()
    for number in range(2500):
        old = remote(f"files/{number:04d}", size_bytes=1, life_seconds=-1.0 if number else 7200.0)
        await ledger.remember_upload(Upload(sha256=f"{number:064x}", file=old, last_used_at=NOW))
    opened = Storage(ledger, FILES)
    await opened.room.open()
    assert [upload.file.name async for upload in ledger.uploads()] == ["files/0000"]
    assert opened.budget.stored_bytes == 1


class TestFreed:
    """Between the decision to delete a file and its end, another item may want it."""

    async def test_a_file_that_is_needed_again_is_not_deleted(self) -> None:
        """Though it was to be freed as soon as nobody needed it."""
        storage = Storage(MemoryLedger(), FILES, keep=False)
        for number in range(3):
            await storage.use(number)
        await storage.room.claim({content(1): 1})
        storage.room.close()
        await storage.room.run()
        assert sorted(storage.service.deleted) == ["files/0000", "files/0002"]
        assert storage.room.known(content(1)) == file(1)

    async def test_a_file_that_is_being_deleted_is_uploaded_again(self) -> None:
        """It counts until it is gone, and the new one from when it is claimed."""
        storage = Storage(MemoryLedger(), FILES, keep=False)
        await storage.use(0)
        storage.service.answers = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(storage.room.run)
            await anyio.wait_all_tasks_blocked()
            assert storage.service.asked == ["files/0000"]
            assert storage.room.known(content(0)) is None
            await storage.room.claim({content(0): 1})
            assert storage.budget.used_bytes == 2
            await storage.room.stored(content(0), file(7))
            storage.room.close()
            storage.service.answers.set()
        assert storage.room.known(content(0)) == file(7)
        assert (storage.budget.used_bytes, storage.budget.stored_bytes) == (1, 1)

    async def test_room_is_not_made_of_what_is_needed_meanwhile(self) -> None:
        """Of several files that were to go, one is claimed while the others are being deleted."""
        storage = Storage(MemoryLedger(), MOST_IDLE)
        for number in range(MOST_IDLE):
            await storage.use(number)
        storage.service.answers = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(storage.room.claim, {content(FILES): MOST_IDLE - 1})
            await anyio.wait_all_tasks_blocked()
            last = max(range(MOST_IDLE - 1), key=lambda number: f"files/{number:04d}" not in storage.service.asked)
            assert f"files/{last:04d}" not in storage.service.asked
            await storage.room.claim({content(last): 1})
            storage.service.answers.set()
        assert f"files/{last:04d}" not in storage.service.deleted
        assert storage.room.known(content(last)) == file(last)

    async def test_a_file_out_of_mind_that_is_being_deleted_is_not_recalled(self) -> None:
        """Nor counted wrongly."""
        filled = Storage(MemoryLedger(), FILES)
        for number in range(FILES):
            await filled.use(number)
        filled.service.answers = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(filled.room.claim, {content(FILES): 1})
            await anyio.wait_all_tasks_blocked()
            assert filled.service.asked == ["files/0000"]
            tasks.start_soon(filled.room.claim, {content(0): 1})
            await anyio.wait_all_tasks_blocked()
            assert filled.room.known(content(0)) is None
            filled.service.answers.set()
        assert filled.service.deleted == ["files/0000", "files/0001"]
        assert filled.budget.used_bytes == FILES

    async def test_files_are_freed_side_by_side(self) -> None:
        """Else a run over many would spend hours deleting after its last answer."""
        storage = Storage(MemoryLedger(), FILES, keep=False)
        for number in range(FILES):
            await storage.use(number)
        storage.service.answers = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(storage.room.run)
            await anyio.wait_all_tasks_blocked()
            assert len(storage.service.asked) == DELETIONS_AT_ONCE
            storage.room.close()
            storage.service.answers.set()
        assert len(storage.service.deleted) == FILES
        assert storage.budget.used_bytes == 0
