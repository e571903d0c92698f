"""The drain ends waits, lets calls end, and knows the exit code."""

import anyio
import pytest

from pipeline.drain import Drain
from pipeline.errors import Draining, ExitCode


async def test_a_wait_ends_when_the_drain_begins() -> None:
    """A wait inside ``interruptible`` raises Draining as soon as the drain begins."""
    drain = Drain()
    ended = []

    async def waiter() -> None:
        with pytest.raises(Draining), drain.interruptible():
            await anyio.sleep_forever()
        ended.append(True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiter)
        await anyio.wait_all_tasks_blocked()
        drain.begin(ExitCode.SIGTERM, "stopped")
    assert ended == [True]


async def test_no_wait_begins_during_a_drain() -> None:
    """Once begun, entering raises at once; what is outside goes on."""
    drain = Drain()
    drain.begin(ExitCode.STOPPED_EARLY, "late")
    with pytest.raises(Draining), drain.interruptible():
        pytest.fail("entered")


@pytest.mark.parametrize(
    ("codes", "first"),
    [([3, 143], 143), ([143, 5], 5), ([3, 5], 5), ([130, 3], 130), ([3], 3), ([5, 143, 70], 70), ([], None)],
)
def test_the_first_that_holds(codes: list[int], first: int | None) -> None:
    """Of several causes the contract's order decides: 70, then 5, then a signal, then 3."""
    drain = Drain()
    for code in codes:
        drain.begin(code, str(code))
    assert drain.exit_code == first
    assert drain.reason == (None if first is None else str(first))


def test_it_is_announced_once() -> None:
    """Further causes don't begin it again."""
    told: list[str] = []
    drain = Drain(told.append)
    drain.begin(3, "deadline")
    drain.begin(143, "signal")
    assert told == ["deadline"]
