"""Runs the emulator until it is stopped; changes when starting it does."""

import asyncio
from collections.abc import Callable

from pipeline.emulator.plan import Plan


async def serve(*, port: int, plan: Plan, ready: Callable[[str], None]) -> None:
    """Serve until cancelled; ``ready`` is told the base URL. OSError where the port is in use."""
    from pipeline.emulator.server import Emulator

    async with Emulator(plan, port=port) as emulator:
        ready(emulator.base_url)
        await asyncio.Event().wait()
