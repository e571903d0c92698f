"""Bodies are bounded in bytes."""

import anyio

from pipeline.generation.body_budget import BodyBudget


async def test_first_come_first_served() -> None:
    """A large body that waits is not overtaken by small ones, and goes when enough is free."""
    budget = BodyBudget(10)
    order: list[str] = []
    release = anyio.Event()

    async def holder(name: str, size: int, until: anyio.Event | None = None) -> None:
        async with budget.hold(size):
            order.append(name)
            if until:
                await until.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(holder, "first", 6, release)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(holder, "large", 8)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(holder, "small", 1)
        await anyio.wait_all_tasks_blocked()
        assert order == ["first"]
        release.set()
    assert order == ["first", "large", "small"]


async def test_a_body_larger_than_the_budget_goes_alone() -> None:
    """It holds the whole budget and no more, so it does not wait for ever."""
    budget = BodyBudget(10)
    with anyio.fail_after(1):
        async with budget.hold(25):
            pass
        async with budget.hold(10):
            pass


async def test_a_cancelled_wait_gives_its_place_back() -> None:
    """Cancelling one that waits lets the next through."""
    budget = BodyBudget(10)
    async with budget.hold(10):
        with anyio.move_on_after(0.01):
            async with budget.hold(5):
                pass
    with anyio.fail_after(1):
        async with budget.hold(10):
            pass
