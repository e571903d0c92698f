"""One thing after another in several lanes at once."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

Thing = TypeVar("Thing")


async def side_by_side(do: Callable[[Thing], Awaitable[None]], things: Iterable[Thing], *, lanes: int) -> None:
    """``do`` each of ``things``, taken as lanes fall free. The first error ends all lanes, and is raised as it is."""
    errors: list[Exception] = []
    left = iter(things)

    async def lane() -> None:
        try:
            for thing in left:
                await do(thing)
        except Exception as error:  # noqa: BLE001 - raised below, not in a group
            errors.append(error)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for _ in range(lanes):
            group.start_soon(lane)
    if errors:
        raise errors[0]
