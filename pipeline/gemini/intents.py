"""A transport that journals every paid call before it leaves, so that a kill leaves no bill unnamed."""

from pipeline.clock import Clock
from pipeline.gemini.api import Call, Reply, Route, Transport
from pipeline.gemini.wire import TransportFault, may_be_billed
from pipeline.ledger.api import Intent, Ledger

_REMEMBERED = 65_536
"""Keys remembered as perhaps billed: far more than are ever under way, and little memory."""


class JournalledTransport:
    """Answers ``Transport``; keeps the promises of the one it wraps.

    An intent is closed here when the call certainly was not billed. One that succeeded, or may have been billed
    unanswered, stays open until the item's line is durable (``Ledger.mark``).
    """

    def __init__(self, transport: Transport, ledger: Ledger, clock: Clock) -> None:
        self._transport = transport
        self._ledger = ledger
        self._clock = clock
        self._doubtful: dict[str, None] = {}

    async def send(self, call: Call) -> Reply:
        if call.route is not Route.GENERATE:
            return await self._transport.send(call)
        await self._ledger.intend(Intent(key=call.subject, attempt=call.attempt, started_at=self._clock.now()))
        try:
            reply = await self._transport.send(call)
        except TransportFault as fault:
            await self._note(call, billed=may_be_billed(fault))
            raise
        await self._note(call, billed=may_be_billed(reply))
        return reply

    async def _note(self, call: Call, *, billed: bool) -> None:
        """An intent is one per key: once an attempt may have been billed, later ones that were not don't close it."""
        if billed:
            self._doubtful[call.subject] = None
            if len(self._doubtful) > _REMEMBERED:
                del self._doubtful[next(iter(self._doubtful))]
        elif call.subject not in self._doubtful:
            await self._ledger.settle(call.subject)
