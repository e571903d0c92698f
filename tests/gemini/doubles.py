"""Stand-ins for what the client stands on, and virtual time."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

import anyio

from pipeline.events import Event
from pipeline.gemini.api import Call, Reply, Route
from pipeline.gemini.governor import Governor
from pipeline.gemini.wire import FaultKind, TransportFault

T = TypeVar("T")
JSON_HEADERS = {"content-type": "application/json"}
OK = Reply(status=200, headers=JSON_HEADERS, body=b'{"candidates":[]}')


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as there is nothing else to do."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual_now = 1000.0

    def time(self) -> float:
        return self._virtual_now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self._virtual_now = max(self._virtual_now, self._scheduled[0].when())
        super()._run_once()


def virtually(scenario: Coroutine[Any, Any, T]) -> T:
    """Run ``scenario`` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scenario)


@asynccontextmanager
async def permit(governor: Governor, call: Call) -> AsyncIterator[None]:
    """A permit, as a caller takes it and gives it back."""
    if not governor.acquire_nowait(call):
        await governor.acquire(call)
    try:
        yield
    finally:
        governor.release(call)


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def notify(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]


class IntentBook:
    """The part of a ledger that the client uses."""

    def __init__(self) -> None:
        self.open: dict[str, int] = {}
        self.learnt_values: dict[str, str] = {}

    async def intend(self, intent: Any) -> None:
        self.open[intent.key] = intent.attempt

    async def settle(self, key: str) -> None:
        self.open.pop(key, None)

    async def learnt(self, name: str, not_before: datetime) -> str | None:
        return self.learnt_values.get(name)

    async def learn(self, name: str, value: str, at: datetime) -> None:
        self.learnt_values[name] = value


Script = Callable[[Call, int], Reply | TransportFault | Awaitable[Reply | TransportFault]]


class Service:
    """A transport that answers by ``script(call, how many calls came before)``."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.calls: list[tuple[float, Call]] = []

    async def send(self, call: Call) -> Reply:
        self.calls.append((anyio.current_time(), call))
        answer = self._script(call, len(self.calls) - 1)
        if not isinstance(answer, Reply | TransportFault):
            answer = await answer
        if isinstance(answer, TransportFault):
            raise answer
        return answer


def error(status: int, message: str = "", code: str = "", *details: dict[str, Any]) -> Reply:
    """An error in the API's shape."""
    body = {"error": {"code": status, "message": message, "status": code, "details": list(details)}}
    return Reply(status=status, headers=JSON_HEADERS, body=json.dumps(body).encode())


def quota(*ids: str, delay: str | None = None) -> Reply:
    """A 429 that violates ``ids``."""
    details: list[dict[str, Any]] = [
        {"@type": "x/google.rpc.QuotaFailure", "violations": [{"quotaId": i, "quotaValue": "9"} for i in ids]}
    ]
    if delay is not None:
        details.append({"@type": "x/google.rpc.RetryInfo", "retryDelay": delay})
    return error(429, "quota", "RESOURCE_EXHAUSTED", *details)


UNAVAILABLE = error(503, "overloaded", "UNAVAILABLE")


def lost(kind: FaultKind) -> TransportFault:
    return TransportFault(kind)


def generate(key: str = "a", tokens: int = 0) -> Call:
    return Call(
        route=Route.GENERATE,
        method="POST",
        path="v1beta/models/m:generateContent",
        total_seconds=10,
        subject=key,
        tokens=tokens,
    )
