"""What waits for an upload is bounded in items and in media."""

import anyio

from pipeline.engine.flow import MediaBound, PastUploading
from pipeline.records import Item
from pipeline.streams import Stream
from tests.support.builders import item, media


def series(key: str, files: int) -> Item:
    """An item of very many media."""
    return item(key, *[media()] * files)


async def test_series_wait_for_room() -> None:
    """One more than the bound may be in, of any size; the next waits until enough of them have been taken."""
    travelling, taken = Stream[Item](512).ends()
    there, passing = Stream[Item](512).ends()
    bound, entered = MediaBound(100), []

    async def feed() -> None:
        async with PastUploading(lambda _item: True, bound, travelling, there) as items:
            for one in (series("a", 60), series("b", 60), series("c", 1000), series("d", 1)):
                await items.send(one)
                entered.append(one.key)

    async with taken, passing, anyio.create_task_group() as tasks:
        tasks.start_soon(feed)
        await anyio.wait_all_tasks_blocked()
        assert entered == ["a", "b"]
        bound.left(taken.receive_nowait())
        await anyio.wait_all_tasks_blocked()
        assert entered == ["a", "b", "c"]
        bound.left(taken.receive_nowait())
        await anyio.wait_all_tasks_blocked()
        assert entered == ["a", "b", "c"]
        bound.left(taken.receive_nowait())
        await anyio.wait_all_tasks_blocked()
        assert entered == ["a", "b", "c", "d"]
