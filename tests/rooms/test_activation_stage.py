"""The poller: a file that can't be asked about holds up no other, and not for ever its own items."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

import anyio
import msgspec
import pytest

from pipeline.activation.schedule import SCOUTS
from pipeline.activation.stage import ActivationRoom
from pipeline.errors import ItemError, StopForHuman
from pipeline.gemini.api import FilesApi
from pipeline.records import Content, FileState, Placed, RemoteFile, Uploaded
from tests.support.builders import NOW, item, media, remote

PATIENCE_SECONDS = 10.0


class Service:
    """files.get, which never answers for files whose name begins with bad."""

    async def get(self, name: str) -> RemoteFile:
        if name.startswith("files/bad"):
            await anyio.sleep_forever()
        end = None if name == "files/endless" else NOW
        return msgspec.structs.replace(remote(name, mime_type="video/mp4"), expires_at=end)


class Storage:
    """Takes note of nothing; ``full`` is a ledger that can't be written."""

    def __init__(self, *, full: bool = False) -> None:
        self._full = full

    async def stored(self, _content: Content, _file: RemoteFile) -> None:
        if self._full:
            raise StopForHuman("No space left")

    async def discard(self, _file: RemoteFile) -> None: ...


@asynccontextmanager
async def room(*, deadline_seconds: float, full: bool = False) -> AsyncGenerator[ActivationRoom]:
    one = ActivationRoom(
        files=cast("FilesApi", Service()), storage=Storage(full=full), deadline_seconds=deadline_seconds
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run)
        with anyio.fail_after(PATIENCE_SECONDS):
            yield one
        one.close()


def waiting(name: str) -> Uploaded:
    """An item with one video that is PROCESSING."""
    file = remote(f"files/{name}", mime_type="video/mp4", state=FileState.PROCESSING)
    one = media(f"{name}.mp4", mime_type="video/mp4")
    return Uploaded(item=item(name, one), parts=(Placed(media=one, file=file),), started_at=NOW)


async def test_a_poll_without_an_answer_holds_up_no_other() -> None:
    """Files behind it are asked about at their time."""
    async with room(deadline_seconds=900) as activation, anyio.create_task_group() as workers:
        workers.start_soon(activation.handle, waiting("bad"))
        await anyio.wait_all_tasks_blocked()
        for name in ("a", "b", "c"):
            assert (await activation.handle(waiting(name))).item.key == name
        workers.cancel_scope.cancel()


async def test_scouts_without_an_answer_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nothing would ever be known of their type."""
    monkeypatch.setattr("pipeline.activation.schedule.SILENCE_SECONDS", 0.2)
    monkeypatch.setattr("pipeline.activation.stage.LOOK_SECONDS", 0.1)
    async with room(deadline_seconds=900) as activation, anyio.create_task_group() as workers:
        for number in range(SCOUTS):
            workers.start_soon(activation.handle, waiting(f"bad{number}"))
        await anyio.wait_all_tasks_blocked()
        assert (await activation.handle(waiting("a"))).item.key == "a"
        workers.cancel_scope.cancel()


async def test_a_file_that_cannot_be_asked_about_fails_at_the_deadline() -> None:
    """Retryable, and the file is kept: nothing is wrong with it as far as anybody knows."""
    async with room(deadline_seconds=0.5) as activation:
        with pytest.raises(ItemError) as caught:
            await activation.handle(waiting("bad"))
    failure = caught.value.failure
    assert (failure.stage, failure.kind, failure.retryable) == ("activation", "unavailable", True)


async def test_a_ledger_that_fails_reaches_the_item() -> None:
    """Whose worker begins the drain; the poller goes on, and cuts off no call of generation."""
    async with room(deadline_seconds=900, full=True) as activation:
        with pytest.raises(StopForHuman):
            await activation.handle(waiting("a"))


async def test_a_file_keeps_its_end_where_none_is_told() -> None:
    """What was known of it when it was uploaded holds until the service says otherwise."""
    async with room(deadline_seconds=900) as activation:
        [told] = (await activation.handle(waiting("a"))).parts
        given = waiting("endless")
        [untold] = (await activation.handle(given)).parts
    ends = [part.file.expires_at for part in (told, untold, *given.parts) if part.file]
    assert ends[0] == NOW
    assert ends[1] == ends[2] != NOW
