"""The calls to one model: its gate, its requests and tokens a minute; pure state over (event, now)."""

import math
from collections.abc import Callable

import msgspec

from pipeline.gemini.governor.limit import Limit
from pipeline.gemini.governor.memory import Ceilings
from pipeline.gemini.governor.pace import GATE_SECONDS, Gate
from pipeline.gemini.signals import Signal, Verdict
from pipeline.moment import Hold

FIRST_CALLS = 8
FIRST_GAP_SECONDS = 0.05
"""Before anything is known the first calls go at once and the next follow at this distance, so that a quota of ten a
minute refuses four of them and not fourteen. The first answer ends it."""

DELAY_JITTER = 0.05
"""``RetryInfo`` is sometimes cut to whole seconds, and other processes wait for the same moment."""

_RATIO_WEIGHT = 0.2


class Told(msgspec.Struct, frozen=True):
    """What a refusal says: how long to wait, and for each quota it names the value, None where it tells none."""

    delay_seconds: float | None = None
    by_requests: bool = True
    by_tokens: bool = False
    requests: float | None = None
    tokens: float | None = None


class TokenRatios:
    """How many tokens a call takes for each that was estimated, by the size of the estimate: pictures, clips and
    plain texts differ in size, and each kind is misjudged in its own way."""

    def __init__(self) -> None:
        self._by_size: dict[int, float] = {}
        self._overall = 1.0

    def expect(self, estimate: int) -> float:
        """Tokens that a call of ``estimate`` will take."""
        return estimate * self._by_size.get(estimate.bit_length(), self._overall)

    def learn(self, estimate: int, actual: int) -> None:
        """A call of ``estimate`` took ``actual``."""
        if estimate > 0:
            seen = min(max(actual / estimate, 0.01), 100.0)
            known = self._by_size.get(estimate.bit_length(), seen)
            self._by_size[estimate.bit_length()] = known + _RATIO_WEIGHT * (seen - known)
            self._overall += _RATIO_WEIGHT * (seen - self._overall)


class Lane:
    """Tells when the next call to a model may start, and learns from how calls end.

    ``requests`` and ``tokens`` are None for calls that no known quota counts; then only the gate holds them.
    """

    def __init__(self, requests: Limit | None, tokens: Limit | None, *, jitter: Callable[[], float]) -> None:
        self.requests = requests
        self.tokens = tokens
        self._gate = Gate()
        self._ratios = TokenRatios()
        self._jitter = jitter
        self._started = 0
        self._started_at = -math.inf
        self._opening = requests is not None
        self._closed_by = Hold.REFUSALS

    def ceilings(self) -> Ceilings:
        """What is known now."""
        return Ceilings(
            self.requests.ceiling if self.requests is not None else None,
            self.tokens.ceiling if self.tokens is not None else None,
        )

    def wait(self, now: float) -> float:
        """Seconds until the next call may start."""
        wait = self._gate.wait(now)
        if self._opening and self._started >= FIRST_CALLS:
            wait = max(wait, self._started_at + FIRST_GAP_SECONDS - now)
        for limit in (self.requests, self.tokens):
            if limit is not None:
                wait = max(wait, limit.wait(now))
        return wait

    def held_by(self, now: float) -> Hold | None:
        """What the next call waits for; None where it may start."""
        if self._gate.wait(now) > 0:
            return self._closed_by
        if self._opening and self._started >= FIRST_CALLS:
            return Hold.SLOW_START
        waits = [
            (limit.wait(now), cap if limit.is_capped else quota)
            for limit, quota, cap in (
                (self.requests, Hold.REQUESTS, Hold.RPM),
                (self.tokens, Hold.TOKENS, Hold.TPM),
            )
            if limit is not None
        ]
        wait, held_by = max(waits, default=(0.0, None), key=lambda each: each[0])
        return held_by if wait > 0 else None

    def start(self, estimate: int, now: float) -> float:
        """A call of about ``estimate`` input tokens starts; the tokens that it is charged until more is known."""
        self._gate.take(now)
        self._started += 1
        self._started_at = now
        if self.requests is not None:
            self.requests.take(1.0, now)
        charged = self._ratios.expect(estimate)
        if self.tokens is not None:
            self.tokens.take(charged, now)
        return charged

    def succeeded(self, *, sent_at: float, now: float) -> None:
        """A call was answered."""
        self._gate.accept(sent_at=sent_at)
        self._opening = False
        for limit in (self.requests, self.tokens):
            if limit is not None:
                limit.accepted(sent_at=sent_at, now=now)

    def counted(self, estimate: int, actual: int, *, charged: float, sent_at: float, now: float) -> None:
        """The answer tells how many input tokens the call took that was ``charged`` so many when it started."""
        if self.tokens is not None:
            self.tokens.correct(actual - charged, sent_at=sent_at, now=now)
        self._ratios.learn(estimate, actual)

    def refused(self, told: Told, *, charged: float, sent_at: float, now: float) -> float:
        """A quota refused the call that was ``charged`` so many tokens; seconds that the gate is now closed."""
        self._opening = False
        if self.requests is not None:
            self._closed_by = Hold.REQUESTS if told.by_requests else Hold.TOKENS
        delay = told.delay_seconds
        if delay is not None:
            delay *= 1.0 + DELAY_JITTER * self._jitter()
        if self.requests is not None:
            self.requests.uncount(1.0, sent_at=sent_at, now=now)
            if told.by_requests:
                self.requests.refused(told.requests, delay_seconds=told.delay_seconds, sent_at=sent_at, now=now)
        if self.tokens is not None:
            self.tokens.uncount(charged, sent_at=sent_at, now=now)
            if told.by_tokens:
                self.tokens.refused(told.tokens, delay_seconds=told.delay_seconds, sent_at=sent_at, now=now)
        limits = [limit for limit in (self.requests, self.tokens) if limit is not None]
        first = max((limit.gate_seconds for limit in limits if limit.ceiling is not None), default=GATE_SECONDS)
        wait = self._gate.refuse(delay, sent_at=sent_at, now=now, first_seconds=first)
        if delay is None:
            for limit in limits:
                limit.rest_until(now + wait)
        return wait


def read_refusal(verdict: Verdict) -> Told:
    """What a 429 says of quotas of minutes. One that names none is taken for the requests'."""
    error = verdict.signal.error
    delay = error.delay.seconds if error.delay else None
    minutes = [v for v in error.violations if "perday" not in f"{v.quota_id} {v.metric}".lower().replace("_", "")]
    by_tokens = [v for v in minutes if "token" in f"{v.quota_id} {v.metric}".lower()]
    by_requests = [v for v in minutes if v not in by_tokens]
    return Told(
        delay_seconds=delay,
        by_requests=bool(by_requests) or not by_tokens,
        by_tokens=bool(by_tokens),
        requests=min((n for v in by_requests if (n := _number(v.value)) is not None), default=None),
        tokens=min((n for v in by_tokens if (n := _number(v.value)) is not None), default=None),
    )


def quotas_of(signal: Signal) -> tuple[str, ...]:
    """The quotas that a 429 names, in plain words; ``unnamed`` where it names none."""
    found = {_quota(f"{v.quota_id} {v.metric}".lower().replace("_", "")) for v in signal.error.violations}
    return tuple(sorted(found)) or ("unnamed",)


def _quota(name: str) -> str:
    if "filestorage" in name:
        return "storage_bytes"
    what = "tokens" if "token" in name else "requests"
    return f"{what}_per_{'day' if 'perday' in name else 'minute'}"


def _number(text: str) -> float | None:
    """A quota's value; nothing that could not be one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None
