"""A transport that tells the observer of every call."""

from pipeline.clock import monotonic
from pipeline.events import CallEnded, CallSent, Observer
from pipeline.gemini.api import Call, Reply, Transport


class ObservedTransport:
    """Answers ``Transport``; keeps the promises of the one it wraps."""

    def __init__(self, transport: Transport, observer: Observer) -> None:
        self._transport = transport
        self._observer = observer

    async def send(self, call: Call) -> Reply:
        self._observer.notify(CallSent(route=call.route, subject=call.subject))
        started = monotonic()
        status = 0
        try:
            reply = await self._transport.send(call)
            status = reply.status
            return reply
        finally:
            seconds = monotonic() - started
            self._observer.notify(CallEnded(route=call.route, subject=call.subject, status=status, seconds=seconds))
