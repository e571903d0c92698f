"""The transport that the clients use: classifies how each call ended, and waits, sends again, or raises our errors."""

import random
from typing import Protocol

import anyio
import msgspec

from pipeline.clock import monotonic
from pipeline.drain import Drain
from pipeline.errors import (
    Failure,
    ItemError,
    PipelineError,
    Stage,
    StopEarly,
    StopForHuman,
    StopRun,
    StorageFull,
    TryAgain,
)
from pipeline.events import Observer, Retrying
from pipeline.gemini.api import Call, Reply, Route, Transport
from pipeline.gemini.classify import classify
from pipeline.gemini.governor import Governor
from pipeline.gemini.health import Breaker, Health, Patience
from pipeline.gemini.signals import AGAIN, Action, Verdict
from pipeline.gemini.table import UNKNOWN_CALL
from pipeline.gemini.wire import TransportFault

_STAGES: dict[Route, Stage] = {
    Route.FILE_GET: "activation",
    Route.MODEL_GET: "generation",
    Route.GENERATE: "generation",
}

_PROVES_NOTHING = frozenset({Route.UPLOAD_START, Route.UPLOAD_QUERY})
"""Their success doesn't show that uploads work: only bytes taken do."""

_BREAKABLE = frozenset({Action.FAIL_ITEM, Action.AGAIN_FRESH_UPLOAD})


class KeyCheck(Protocol):
    """Confirms by one free call whether the key is good."""

    async def works(self, call: Call) -> bool | None:
        """Whether the key of ``call`` is good; None where that can't be told."""
        ...


class SessionLost(PipelineError):
    """Inside this folder only: an upload chunk's fate is unknown, or its session is dead (``dead``)."""

    def __init__(self, verdict: Verdict, *, charged: bool) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict
        self.dead = verdict.action is Action.RESTART
        self.charged = charged


class _Effort:
    """What one call has taken so far."""

    __slots__ = ("_successes", "alone", "ambiguous", "by_rule", "charged", "sent")

    def __init__(self, successes: int) -> None:
        self.sent = 0
        self.ambiguous = False
        self.by_rule: dict[str, int] = {}
        """How often each row of the table was met."""
        self.charged: dict[str, int] = {}
        """How often of that it counted towards the limits of tries."""
        self.alone = 0
        """Failures while others succeeded: the item is at fault, not the service."""
        self._successes = successes

    def note(self, verdict: Verdict, successes: int) -> None:
        self.ambiguous |= verdict.ambiguous
        self.by_rule[verdict.rule] = self.by_rule.get(verdict.rule, 0) + 1
        if verdict.is_outage and successes > self._successes:
            self.alone += 1
        self._successes = successes

    def charge(self, verdict: Verdict, attempts: int | None) -> bool:
        """Count one more; tells whether it was the last of this row's, or of the ``attempts`` that all rows share."""
        of_rule = self.charged[verdict.rule] = self.charged.get(verdict.rule, 0) + 1
        if verdict.tries is not None and of_rule >= verdict.tries:
            return True
        return attempts is not None and sum(self.charged.values()) >= attempts


class RetryingTransport:
    """Answers ``Transport`` for one family of calls, with its own health.

    Every reply it returns is a success by the table. Raises ``ItemError``, ``TryAgain``, ``StorageFull`` (uploads),
    ``SessionLost`` (upload chunks and queries), ``Draining``, and ``StopRun``, upon which the drain has begun.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        governor: Governor,
        key_check: KeyCheck,
        attempts: int | None,
        patience: Patience,
        drain: Drain,
        observer: Observer,
    ) -> None:
        self._transport = transport
        self._governor = governor
        self._key_check = key_check
        self._attempts = attempts
        self._patience = patience
        self._drain = drain
        self._observer = observer
        self._health = Health(patience)
        self._refused = Breaker(patience.breaker_subjects)
        self._rewritten = Breaker(patience.breaker_subjects)
        self._opened = anyio.Event()
        self.backing_off = 0
        """Calls that wait to be sent again."""

    @property
    def in_outage(self) -> bool:
        """Whether nothing at all succeeds."""
        return self._health.in_outage

    async def send(self, call: Call) -> Reply:
        effort = _Effort(self._health.successes)
        try:
            while True:
                reply, verdict, sent_at = await self._attempt(call, effort)
                if reply is not None and verdict.action is Action.SUCCESS:
                    return Reply(
                        status=reply.status,
                        headers=reply.headers,
                        body=reply.body,
                        value=verdict.signal.value,
                        attempts=effort.sent,
                        ambiguous=effort.ambiguous,
                    )
                wait = await self._decide(call, verdict, effort, sent_at)
                self.backing_off += 1
                try:
                    with self._drain.interruptible():
                        await anyio.sleep(wait)
                finally:
                    self.backing_off -= 1
        except StopRun as stop:
            self._drain.begin(stop.exit_code, str(stop))
            raise

    async def _attempt(self, call: Call, effort: _Effort) -> tuple[Reply | None, Verdict, float]:
        """Send once, when health and governor allow; tell them how it ended."""
        try:
            await self._permitted(call)
            try:
                return await self._send_once(call, effort)
            finally:
                self._governor.release(call)
        except BaseException:
            self._health.gave_up(call.subject, monotonic())  # whoever was the probe is it no more
            raise

    async def _permitted(self, call: Call) -> None:
        """Return with a permit in hand, when health lets the call go."""
        while True:
            if self._health.in_trouble:
                await self._await_health(call)
            if self._governor.acquire_nowait(call):
                return  # health can't have changed meanwhile
            await self._governor.acquire(call)
            is_held = self._health.in_trouble and self._health.admit(call.subject, monotonic()) > 0
            if not is_held and not self._drain.begun:
                return
            self._governor.release(call)  # an outage, or the drain, began while this call waited
            self._drain.check()

    async def _await_health(self, call: Call) -> None:
        while (wait := self._health.admit(call.subject, monotonic())) > 0:
            with self._drain.interruptible(), anyio.move_on_after(wait):
                await self._opened.wait()

    async def _send_once(self, call: Call, effort: _Effort) -> tuple[Reply | None, Verdict, float]:
        effort.sent += 1
        sent_at = monotonic()
        reply: Reply | None = None
        try:
            if effort.sent > 1:
                call = msgspec.structs.replace(call, attempt=effort.sent)
            reply = await self._transport.send(call)
            verdict = classify(call.route, reply)
        except TransportFault as fault:
            verdict = classify(call.route, fault)
        effort.note(verdict, self._health.successes)
        now = monotonic()
        self._governor.observe(call, verdict, sent_at=sent_at, now=now)
        self._note_health(call, verdict, sent_at, now)
        return reply, verdict, sent_at

    def _note_health(self, call: Call, verdict: Verdict, sent_at: float, now: float) -> None:
        health = self._health
        if verdict.signal.fault is None:
            health.answered()
        if not verdict.rewritten:
            self._rewritten.reset()
        if verdict.action is Action.SUCCESS:
            if call.route in _PROVES_NOTHING:
                return
            self._refused.reset()
            if health.succeeded(sent_at=sent_at):
                self._opened.set()
                self._opened = anyio.Event()
        elif verdict.is_outage:
            health.failed(call.subject, now, never_connected=verdict.never_connected)
        else:
            health.gave_up(call.subject, now)

    async def _decide(self, call: Call, verdict: Verdict, effort: _Effort, sent_at: float) -> float:
        """Seconds to wait before the next try; raises where there is none."""
        self._break(call, verdict)
        if verdict.rule == UNKNOWN_CALL:
            await self._doubt_endpoint(call, verdict, effort)
        match verdict.action:
            case Action.WAIT | Action.PROBE_DAY:
                return self._wait_for_quota(call, verdict, sent_at)
            case Action.PROBE_KEY:
                return await self._confirm_key(call, verdict, effort)
            case Action.STOP_EARLY:
                raise StopEarly(verdict.message)
            case Action.STOP_HUMAN:
                raise StopForHuman(verdict.message)
            case Action.PAUSE_STORAGE:
                raise StorageFull(verdict.message)
            case Action.QUERY | Action.RESTART:
                self._check_hope()
                self._tell(call, verdict, 0.0)
                raise SessionLost(verdict, charged=self._charges(verdict, effort))
            case Action.RETRY:
                return self._back_off(call, verdict, effort)
            case _:
                raise _end(call, verdict, effort)

    def _wait_for_quota(self, call: Call, verdict: Verdict, sent_at: float) -> float:
        """The gate is closed already (``Governor.observe``); a chunk's offset is asked for when it opens."""
        now = monotonic()
        self._health.refused(now)
        delay = verdict.signal.error.delay
        seconds = delay.seconds if delay and delay.seconds is not None else 60.0
        if verdict.action is Action.PROBE_DAY and self._health.day_refused(
            sent_at=sent_at, now=now, delay_seconds=seconds
        ):
            raise StopEarly(verdict.message)
        if delay and delay.absurd and self._health.refused_absurdly(sent_at=sent_at, now=now):
            raise StopEarly(f"the quota seems used up for the day: {verdict.message}")
        self._check_hope()
        if call.route is Route.UPLOAD_CHUNK:
            raise SessionLost(verdict, charged=False)
        return 0.0

    async def _confirm_key(self, call: Call, verdict: Verdict, effort: _Effort) -> float:
        works = await self._key_check.works(call)
        if works is not False and effort.by_rule[verdict.rule] < (verdict.tries or 1):
            return self._pause(call, verdict, effort)
        is_items_own = works and self._health.successes and not self._refused.trips(verdict.rule, call.subject)
        raise _end(call, verdict, effort) if is_items_own else StopForHuman(verdict.message)

    def _back_off(self, call: Call, verdict: Verdict, effort: _Effort) -> float:
        self._check_hope()
        if self._charges(verdict, effort) and effort.charge(verdict, self._attempts):
            raise _end(call, verdict, effort)
        return self._pause(call, verdict, effort)

    def _charges(self, verdict: Verdict, effort: _Effort) -> bool:
        """In an outage waiting is free, but not for an item that has failed twice while others succeeded."""
        return not (verdict.is_outage and self._health.in_outage) or effort.alone >= 2

    def _pause(self, call: Call, verdict: Verdict, effort: _Effort) -> float:
        wait = random.uniform(0, self._patience.backoff_cap(effort.sent))  # noqa: S311  # jitter, no secret
        if verdict.is_outage and not self._health.in_outage:  # an outage is probed one by one and needs no budget
            wait = max(wait, self._governor.retry_wait(monotonic()))
        self._tell(call, verdict, wait)
        return wait

    def _tell(self, call: Call, verdict: Verdict, wait: float) -> None:
        self._observer.notify(
            Retrying(
                route=call.route,
                subject=call.subject,
                cause=verdict.rule,
                wait_seconds=wait,
                message=verdict.message,
            )
        )

    async def _doubt_endpoint(self, call: Call, verdict: Verdict, effort: _Effort) -> None:
        """Stop where nothing speaks for the endpoint: no call has succeeded, and the free one tells nothing either."""
        is_in_doubt = effort.by_rule[verdict.rule] > 1 and not self._health.successes
        if is_in_doubt and await self._key_check.works(call) is None:
            raise StopForHuman(f"{verdict.message}; correct the base URL")

    def _break(self, call: Call, verdict: Verdict) -> None:
        """Stop where the same trouble meets item after item: then it is not theirs."""
        if verdict.rewritten and self._rewritten.trips("", call.subject):
            raise StopForHuman(f"something between here and the service rewrites its replies: {verdict.message}")
        if verdict.rule == "no upload URL" and self._refused.trips(verdict.rule, call.subject):
            raise StopForHuman("a proxy strips X-Goog-Upload-URL from replies; go round it or let the header pass")
        if verdict.action in _BREAKABLE and self._refused.trips(verdict.message, call.subject):
            raise StopForHuman(f"every item is refused alike, so it is not theirs: {verdict.message}")

    def _check_hope(self) -> None:
        if self._health.hopeless(monotonic()):
            minutes = round(self._patience.outage_seconds / 60)
            raise StopEarly(f"long outage: nothing has succeeded for {minutes} minutes; run again later")


def _end(call: Call, verdict: Verdict, effort: _Effort) -> TryAgain | ItemError:
    """How the item leaves this pass."""
    failure = failure_of(call.route, verdict)
    attempts = effort.sent if call.route is Route.GENERATE else 0
    if reason := AGAIN.get(verdict.action):
        names = file_names(call, verdict)
        return TryAgain(reason, failure, file_names=names, attempts=attempts, ambiguous=effort.ambiguous)
    return ItemError(failure, attempts=attempts, ambiguous=effort.ambiguous)


def failure_of(route: Route, verdict: Verdict) -> Failure:
    """The ``Failure`` of an item that ends with ``verdict``."""
    return Failure(
        stage=_STAGES.get(route, "upload"),
        kind=verdict.kind or "unclassified",
        message=verdict.message,
        retryable=verdict.retryable,
        http_status=verdict.signal.status or None,
        api_status=verdict.signal.error.status,
    )


def file_names(call: Call, verdict: Verdict) -> tuple[str, ...]:
    """The files that a refusal speaks of: the one that was asked for, or the one that its message names."""
    if call.route is Route.FILE_GET:
        return (call.subject,)
    return verdict.signal.named_files()
