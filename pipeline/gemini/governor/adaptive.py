"""The governor of a run: lines of waiting calls before the pure states of ``lane.py`` and ``slots.py``."""

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable

import anyio

from pipeline.clock import Clock, monotonic
from pipeline.drain import Drain
from pipeline.errors import StopEarly
from pipeline.events import GateClosed, LimitLearnt, Observer, Refused
from pipeline.gemini.api import Call
from pipeline.gemini.governor.lane import Lane, Told, quotas_of, read_refusal
from pipeline.gemini.governor.limit import Limit
from pipeline.gemini.governor.memory import Ceilings, QuotaMemory
from pipeline.gemini.governor.pace import DayCount
from pipeline.gemini.governor.slots import RetryBudget, Slots
from pipeline.gemini.signals import Action, Verdict
from pipeline.moment import Hold, Pressure
from pipeline.records import Json
from pipeline.spec import QuotaSpec

KEEP_SECONDS = 5.0
"""How often what is learnt is kept, at most: what a kill may lose."""

SAY_GATE_SECONDS = 1.0
SAY_AGAIN_SECONDS = 10.0
"""Gates that close for less, or again so soon, are not worth a line of the log."""

SAY_CHANGE = 0.05
"""A ceiling that moves less says nothing new."""

_TICK_SECONDS = 0.0005
"""What no timer can wait for: uvloop's count milliseconds."""

TOKENS_BELIEVED = 2**40
"""A count beyond this is no count."""

_REFUSED = frozenset({Action.WAIT, Action.PROBE_DAY})


class _Line:
    """The calls to one model that wait, first come first served, with one timer for the first of them."""

    def __init__(self, model: str, lane: Lane, day: DayCount | None) -> None:
        self.model = model
        self.lane = lane
        self.day = day
        self.waiting: deque[tuple[asyncio.Future[None], Call]] = deque()
        self.charged: dict[str, float] = {}
        """Input tokens that the calls which are out were charged, by their subjects."""
        self.timer: asyncio.TimerHandle | None = None
        self.rings_at = math.inf
        self.gate_said_at = -math.inf
        self.said: dict[Hold, int] = {}
        self.kept = Ceilings()


class AdaptiveGovernor:
    """Answers ``Governor`` for one family of calls. Without a ``quota`` it paces nothing: slots and gate only."""

    def __init__(
        self,
        *,
        concurrency: int,
        quota: QuotaSpec | None,
        drain: Drain,
        observer: Observer,
        clock: Clock,
        memory: QuotaMemory | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._quota = quota
        self._drain = drain
        self._observer = observer
        self._clock = clock
        self._memory = memory if quota else None
        self._jitter = jitter
        self._slots = Slots(concurrency)
        self._budget = RetryBudget()
        self._lines: dict[str, _Line] = {}
        self._turns: deque[_Line] = deque()
        self._opening = anyio.Lock()
        self._keep_at = -math.inf if self._memory else math.inf

    def retry_wait(self, now: float) -> float:
        return self._budget.take(now)

    def pressure(self) -> Pressure:
        """What waits, and for what; of the models the one that most wait for speaks."""
        line = max(self._lines.values(), key=lambda each: len(each.waiting), default=None)
        held_by: Hold | None = None
        if line is not None and line.waiting:
            held_by = line.lane.held_by(monotonic()) if self._slots.free() else self._slots.held_by()
        return Pressure(
            in_flight=self._slots.in_flight,
            waiting=sum(len(each.waiting) for each in self._lines.values()),
            held_by=held_by,
            model=line.model if line is not None else "",
            slots=self._slots.limit,
        )

    def acquire_nowait(self, call: Call) -> bool:
        """As ``acquire``, where there is nothing to wait for, to count or to keep."""
        self._drain.check()
        line = self._lines.get(call.model)
        if line is None or line.day is not None or line.waiting or not self._slots.free():
            return False
        now = monotonic()
        if now >= self._keep_at or line.lane.wait(now) > _TICK_SECONDS:
            return False
        self._start(line, call, now)
        return True

    async def acquire(self, call: Call) -> None:
        """Wait for a slot, the gate and the pace, behind those who asked before."""
        self._drain.check()
        line = self._lines.get(call.model) or await self._open(call.model)
        now = monotonic()
        if now >= self._keep_at:
            self._keep_at = now + KEEP_SECONDS
            await self.keep()
            now = monotonic()
        if line.waiting or not self._slots.free() or line.lane.wait(now) > _TICK_SECONDS:
            await self._queue(line, call)
        else:
            self._start(line, call, now)
        if line.day is not None and not line.day.take(self._clock.now()):
            self.release(call)
            raise StopEarly("the day's requests ([quota] rpd) are used up; run again after midnight Pacific time")

    def release(self, call: Call) -> None:
        self._slots.in_flight -= 1
        self._lines[call.model].charged.pop(call.subject, None)
        self._turns.rotate(-1)
        for line in self._turns:
            if line.waiting:
                self._serve(line)

    def observe(self, call: Call, verdict: Verdict, *, sent_at: float, now: float) -> None:
        line = self._lines[call.model]
        if verdict.action is Action.SUCCESS:
            self._slots.succeeded()
            self._budget.succeeded()
            line.lane.succeeded(sent_at=sent_at, now=now)
            if line.lane.tokens is not None and (tokens := _input_tokens(verdict.signal.value)):
                charged = line.charged.get(call.subject, 0.0)
                line.lane.counted(call.tokens, tokens, charged=charged, sent_at=sent_at, now=now)
            return
        if verdict.signal.status == 429:
            quotas = quotas_of(verdict.signal)
            self._observer.notify(Refused(route=call.route, model=call.model, quotas=quotas))
        if verdict.action in _REFUSED:
            self._refused(line, call, verdict, sent_at, now)
        elif verdict.is_outage:
            self._slots.failed(sent_at=sent_at, now=now)

    async def keep(self, *, at_end: bool = False) -> None:
        """Put what was learnt into the ledger, where it is news; ``at_end`` the last values are told to the unit."""
        if self._memory is None:
            return
        for line in tuple(self._lines.values()):
            self._say_limits(line, changed_by=0.0 if at_end else SAY_CHANGE)
            ceilings = line.lane.ceilings()
            if ceilings != line.kept:
                line.kept = ceilings
                await self._memory.keep_ceilings(line.model, ceilings)
            if line.day is not None and (requests := line.day.news(self._clock.now())) is not None:
                await self._memory.keep_requests_today(line.model, requests)

    async def _open(self, model: str) -> _Line:
        """The line of a model that is met for the first time."""
        async with self._opening:
            if model not in self._lines:
                line = self._lines[model] = await self._line(model)
                self._turns.append(line)
            return self._lines[model]

    async def _line(self, model: str) -> _Line:
        quota = self._quota
        if quota is None:
            return _Line(model, Lane(None, None, jitter=self._jitter), None)
        known = await self._memory.ceilings(model) if self._memory else Ceilings()
        used = await self._memory.requests_today(model) if self._memory and quota.rpd is not None else 0
        day = DayCount(quota.rpd, used, self._clock.now()) if quota.rpd is not None else None
        requests = Limit(cap=quota.rpm, share=quota.share, known=known.requests)
        tokens = Limit(cap=quota.tpm, share=quota.share, known=known.tokens)
        return _Line(model, Lane(requests, tokens, jitter=self._jitter), day)

    async def _queue(self, line: _Line, call: Call) -> None:
        waiter = asyncio.get_running_loop().create_future()
        line.waiting.append((waiter, call))
        self._serve(line)
        try:
            with self._drain.interruptible():
                await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self.release(call)  # its turn had come just now
            waiter.cancel()
            raise

    def _serve(self, line: _Line) -> None:
        """Let those go whose time has come, and wake up when the next one's comes."""
        now = monotonic()
        while line.waiting:
            waiter, call = line.waiting[0]
            if waiter.done():
                line.waiting.popleft()  # it was cancelled
            elif not self._slots.free():
                return
            elif (wait := line.lane.wait(now)) > _TICK_SECONDS:
                self._wake(line, now + wait)
                return
            else:
                line.waiting.popleft()
                self._start(line, call, now)
                waiter.set_result(None)

    def _start(self, line: _Line, call: Call, now: float) -> None:
        self._slots.in_flight += 1
        line.charged[call.subject] = line.lane.start(call.tokens, now)

    def _wake(self, line: _Line, at: float) -> None:
        """One timer a line. One that rings too early sets itself anew; one that would ring too late is replaced."""
        if line.timer is not None:
            if line.rings_at <= at:
                return
            line.timer.cancel()
        line.rings_at = at
        line.timer = asyncio.get_running_loop().call_at(at, self._woken, line)

    def _woken(self, line: _Line) -> None:
        line.timer = None
        self._serve(line)

    def _refused(self, line: _Line, call: Call, verdict: Verdict, sent_at: float, now: float) -> None:
        told = read_refusal(verdict)
        if verdict.action is Action.PROBE_DAY:  # nothing is learnt of the minute: its pace would hold the probe back
            told = Told(delay_seconds=told.delay_seconds, by_requests=False)
        charged = line.charged.get(call.subject, 0.0)
        wait = line.lane.refused(told, charged=charged, sent_at=sent_at, now=now)
        if self._quota is None:
            self._slots.cut(sent_at=sent_at, now=now)
        if wait >= SAY_GATE_SECONDS and now - line.gate_said_at >= SAY_AGAIN_SECONDS:
            line.gate_said_at = now
            self._observer.notify(GateClosed(cause=verdict.rule, wait_seconds=wait, message=verdict.message))
        self._say_limits(line)

    def _say_limits(self, line: _Line, *, changed_by: float = SAY_CHANGE) -> None:
        for quota, limit in ((Hold.REQUESTS, line.lane.requests), (Hold.TOKENS, line.lane.tokens)):
            if limit is None or limit.ceiling is None:
                continue
            ceiling, said = round(limit.ceiling), line.said.get(quota, 0)
            if abs(ceiling - said) > changed_by * said:
                line.said[quota] = ceiling
                self._observer.notify(
                    LimitLearnt(model=line.model, quota=quota, per_minute=ceiling, is_told=limit.is_told)
                )


def _input_tokens(answer: Json) -> int:
    """What ``usageMetadata`` says of the input; 0 where it says nothing."""
    usage = answer.get("usageMetadata") if isinstance(answer, dict) else None
    tokens = usage.get("promptTokenCount") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) and 0 < tokens < TOKENS_BELIEVED else 0
