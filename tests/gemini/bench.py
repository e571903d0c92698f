"""A retrying transport over a scripted service."""

from collections.abc import Callable

import anyio

from pipeline.clock import SystemClock
from pipeline.drain import Drain
from pipeline.gemini.api import Call, Reply
from pipeline.gemini.governor.adaptive import AdaptiveGovernor
from pipeline.gemini.health import Patience
from pipeline.gemini.intents import JournalledTransport
from pipeline.gemini.models import KeyProbe
from pipeline.gemini.retrying import RetryingTransport
from pipeline.spec import EndpointSpec, QuotaSpec
from tests.gemini.doubles import IntentBook, Recorder, Script, Service, generate


class Bench:
    """A retrying transport over a scripted service."""

    def __init__(self, script: Script, *, attempts: int | None = 6, concurrency: int = 64, **caps: float) -> None:
        self.service = Service(script)
        self.drain = Drain()
        self.seen = Recorder()
        self.book = IntentBook()
        self.governor = AdaptiveGovernor(
            concurrency=concurrency,
            quota=QuotaSpec(**caps),
            drain=self.drain,
            observer=self.seen,
            clock=SystemClock(),
        )
        self.transport = RetryingTransport(
            JournalledTransport(self.service, self.book, SystemClock()),
            governor=self.governor,
            key_check=KeyProbe(self.service, EndpointSpec()),
            attempts=attempts,
            patience=Patience(),
            drain=self.drain,
            observer=self.seen,
        )

    async def all(self, keys: list[str], call: Callable[[str], Call] = generate) -> dict[str, Reply | Exception]:
        """Send a call for each key at once; what became of each. Whatever it was, no permit is held for it."""
        ends: dict[str, Reply | Exception] = {}

        async def one(key: str) -> None:
            try:
                ends[key] = await self.transport.send(call(key))
            except Exception as end:  # noqa: BLE001  # the test judges it
                ends[key] = end

        async with anyio.create_task_group() as group:
            for key in keys:
                group.start_soon(one, key)
        assert self.governor.pressure().in_flight == 0
        return ends
