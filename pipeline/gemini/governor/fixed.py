"""The first governor: fixed caps where they are known, the gate where they are not."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio

from pipeline.clock import Clock
from pipeline.drain import Drain
from pipeline.errors import StopEarly
from pipeline.events import GateClosed, LimitLearnt, Observer
from pipeline.gemini.api import Call
from pipeline.gemini.governor.pace import DayCount, Gate, Rate
from pipeline.gemini.signals import Action, Verdict
from pipeline.spec import QuotaSpec

_REFUSED = frozenset({Action.WAIT, Action.PROBE_DAY})


class FixedGovernor:
    """Answers ``Governor``. Calls start in the order in which they asked; the rates count starts."""

    def __init__(
        self, *, concurrency: int | None, quota: QuotaSpec, drain: Drain, observer: Observer, clock: Clock
    ) -> None:
        self._slots = anyio.Semaphore(concurrency, fast_acquire=True) if concurrency is not None else None
        self._turn = anyio.Lock(fast_acquire=True)
        self._gate = Gate()
        self._requests = Rate(quota.rpm) if quota.rpm else None
        self._tokens = Rate(quota.tpm) if quota.tpm else None
        self._day = DayCount(quota.rpd) if quota.rpd is not None else None
        self._drain = drain
        self._observer = observer
        self._clock = clock
        self._learnt: dict[str, str] = {}

    def permit(self, call: Call) -> AbstractAsyncContextManager[None]:
        return self._permit(call)

    @asynccontextmanager
    async def _permit(self, call: Call) -> AsyncIterator[None]:
        if self._slots is None:
            await self._await_turn(call)
            yield
            return
        with self._drain.interruptible():
            await self._slots.acquire()
        try:
            await self._await_turn(call)
            yield
        finally:
            self._slots.release()

    async def _await_turn(self, call: Call) -> None:
        with self._drain.interruptible():
            async with self._turn:
                while (wait := self._wait(anyio.current_time())) > 0:  # noqa: ASYNC110  # a gate may close meanwhile
                    await anyio.sleep(wait)
                self._take(call, anyio.current_time())

    def _wait(self, now: float) -> float:
        return max(rate.wait(now) for rate in (self._gate, self._requests, self._tokens) if rate is not None)

    def _take(self, call: Call, now: float) -> None:
        if self._day is not None and not self._day.take(self._clock.now()):
            raise StopEarly("the day's requests ([quota] rpd) are used up; run again after midnight Pacific time")
        self._gate.take(now)
        if self._requests is not None:
            self._requests.take(1, now)
        if self._tokens is not None:
            self._tokens.take(call.tokens, now)

    def observe(self, call: Call, verdict: Verdict, *, sent_at: float, now: float) -> None:  # noqa: ARG002
        if verdict.action not in _REFUSED:
            if verdict.action is Action.SUCCESS:
                self._gate.accept()
            return
        delay = verdict.signal.error.delay
        wait = self._gate.refuse(delay.seconds if delay else None, sent_at=sent_at, now=now)
        self._observer.notify(GateClosed(cause=verdict.rule, wait_seconds=wait, message=verdict.message))
        for violation in verdict.signal.error.violations:
            if violation.value and self._learnt.get(violation.quota_id) != violation.value:
                self._learnt[violation.quota_id] = violation.value
                self._observer.notify(LimitLearnt(name=violation.quota_id, value=violation.value))
