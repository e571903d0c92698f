"""One timer ends every call whose time is over, and no other; a cancellation from outside stays one."""

import asyncio
import time

import anyio
import pytest

from pipeline.gemini.time_limit import TimeLimits


async def outlive(limits: TimeLimits, seconds: float, work_seconds: float) -> str:
    try:
        with limits.of(seconds):
            await asyncio.sleep(work_seconds)
    except TimeoutError:
        return "over"
    return "done"


async def test_each_call_has_its_own_end() -> None:
    limits = TimeLimits()

    ended = await asyncio.gather(
        outlive(limits, 30, 0.01), outlive(limits, 0.05, 30), outlive(limits, 0.1, 30), outlive(limits, 30, 0.2)
    )

    assert ended == ["done", "over", "over", "done"]


async def test_a_later_call_may_end_before_an_earlier_one() -> None:
    limits = TimeLimits()
    async with asyncio.TaskGroup() as tasks:
        slow = tasks.create_task(outlive(limits, 0.3, 30))
        await asyncio.sleep(0)

        began = time.monotonic()
        assert await outlive(limits, 0.05, 30) == "over"
        assert time.monotonic() - began < 0.25

    assert slow.result() == "over"


async def test_the_timer_goes_on_after_it_rang_for_nobody() -> None:
    limits = TimeLimits()

    assert await outlive(limits, 0.05, 0) == "done"
    assert await outlive(limits, 0.1, 30) == "over"
    assert await outlive(limits, 0.05, 30) == "over"


async def test_a_cancellation_from_outside_is_no_timeout() -> None:
    limits = TimeLimits()
    call = asyncio.create_task(outlive(limits, 30, 30))
    await asyncio.sleep(0)

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_cancellation_at_the_same_moment_wins() -> None:
    limits = TimeLimits()
    seen: list[str] = []

    async def call() -> None:
        try:
            with limits.of(0.05):
                await asyncio.sleep(30)
        finally:
            seen.append("ended")

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.05, task.cancel)
    time.sleep(0.1)

    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["ended"]


async def test_a_scope_of_anyio_sees_only_its_own_end() -> None:
    limits = TimeLimits()

    with anyio.move_on_after(0.05) as scope:
        assert await outlive(limits, 30, 30) == "never"
    assert scope.cancelled_caught

    with anyio.move_on_after(30) as scope:
        assert await outlive(limits, 0.05, 30) == "over"
        await anyio.sleep(0.01)
    assert not scope.cancelled_caught


async def test_what_the_body_raises_passes() -> None:
    limits = TimeLimits()

    with pytest.raises(ValueError, match="its own"), limits.of(30):
        raise ValueError("its own")

    assert await outlive(limits, 0.05, 30) == "over"
