"""Rate limits per project and model, in pure time; changes when the service counts requests otherwise.

Dimensions and their reset: ai.google.dev/gemini-api/docs/rate-limits (per project, not per key; days end at midnight
Pacific). Names of quotas and metrics: 429 bodies quoted in issue threads, 2025 and 2026.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from pipeline.emulator import api_errors
from pipeline.emulator.plan import Quota
from pipeline.emulator.reply import Reply

MINUTE_SECONDS = 60.0
PACIFIC = ZoneInfo("America/Los_Angeles")

Dimension = Literal["requests_per_minute", "input_tokens_per_minute", "requests_per_day"]


@dataclass(slots=True)
class Window:
    """What was used of one limit within a minute."""

    limit: float
    kind: Literal["fixed", "sliding", "token_bucket"]
    capacity: float
    used: float = 0.0
    since_seconds: float = -math.inf
    entries: deque[tuple[float, float]] = field(default_factory=deque)

    def wait_seconds(self, amount: float, now_seconds: float) -> float:
        """0 where ``amount`` fits now, else how long until it does."""
        self._move_to(now_seconds)
        if self.used + amount <= self.capacity:
            return 0.0
        if amount > self.capacity:
            return MINUTE_SECONDS  # it never fits; the service asks to wait all the same
        if self.kind == "fixed":
            return self.since_seconds + MINUTE_SECONDS - now_seconds
        missing = self.used + amount - self.capacity
        if self.kind == "token_bucket":
            return missing * MINUTE_SECONDS / self.limit
        for moment, entry in self.entries:
            missing -= entry
            if missing <= 0:
                return moment + MINUTE_SECONDS - now_seconds
        return MINUTE_SECONDS

    def take(self, amount: float, now_seconds: float) -> None:
        """Use ``amount``."""
        self.used += amount
        if self.kind == "sliding":
            self.entries.append((now_seconds, amount))

    def _move_to(self, now_seconds: float) -> None:
        if self.kind == "fixed":
            start = now_seconds - now_seconds % MINUTE_SECONDS
            if start > self.since_seconds:
                self.since_seconds, self.used = start, 0.0
        elif self.kind == "sliding":
            while self.entries and self.entries[0][0] + MINUTE_SECONDS <= now_seconds:
                self.used -= self.entries.popleft()[1]
        else:
            elapsed_seconds = now_seconds - self.since_seconds
            self.used = max(0.0, self.used - elapsed_seconds * self.limit / MINUTE_SECONDS) if self.used else 0.0
            self.since_seconds = now_seconds


@dataclass(slots=True)
class Exceeded:
    """One limit that a request would break."""

    dimension: Dimension
    limit: int
    wait_seconds: float


class Meter:
    """The use of one project and model."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._requests = _window(quota, quota.requests_per_minute, quota.burst)
        self._tokens = _window(quota, quota.input_tokens_per_minute, None)
        self._day = ""
        self._today = 0

    def admit(self, tokens: int, now: datetime) -> list[Exceeded]:
        """Count the request, or name every limit it would break and count nothing."""
        seconds = now.timestamp()
        exceeded: list[Exceeded] = []
        self._start_day(now)
        per_day = self._quota.requests_per_day
        if per_day is not None and self._today >= per_day:
            exceeded.append(Exceeded("requests_per_day", per_day, seconds_to_midnight_pacific(now)))
        windows: list[tuple[Dimension, Window | None, int]] = [
            ("requests_per_minute", self._requests, 1),
            ("input_tokens_per_minute", self._tokens, tokens),
        ]
        for dimension, window, amount in windows:
            if window is not None and (wait := window.wait_seconds(amount, seconds)) > 0:
                exceeded.append(Exceeded(dimension, int(window.limit), wait))
        if not exceeded:
            self._today += 1
            for _, window, amount in windows:
                if window is not None:
                    window.take(amount, seconds)
        return exceeded

    def _start_day(self, now: datetime) -> None:
        day = now.astimezone(PACIFIC).date().isoformat()
        if day != self._day:
            self._day, self._today = day, 0


class Quotas:
    """Every meter of an emulator."""

    def __init__(self, quotas: list[Quota]) -> None:
        self._quotas = quotas
        self._meters: dict[tuple[str, str], Meter] = {}

    def admit(self, project: str, model: str, tokens: int, now: datetime) -> Reply | None:
        """Count the request of ``project`` to ``model``, or answer with a 429."""
        quota = next((quota for quota in self._quotas if quota.model in (model, "*")), None)
        if quota is None:
            return None
        meter = self._meters.get((project, model))
        if meter is None:
            meter = self._meters[project, model] = Meter(quota)
        exceeded = meter.admit(tokens, now)
        return refusal(quota, model, exceeded) if exceeded else None


def seconds_to_midnight_pacific(now: datetime) -> float:
    """How long the Pacific day still lasts (23 to 25 hours long when the clocks change)."""
    local = now.astimezone(PACIFIC)
    midnight = datetime.combine(local.date() + timedelta(days=1), datetime.min.time(), PACIFIC)
    return (midnight.astimezone(UTC) - now).total_seconds()


def metric(dimension: Dimension, *, free_tier: bool) -> str:
    """The metric's name in a 429 body."""
    if free_tier:
        name = "input_token_count" if dimension == "input_tokens_per_minute" else "requests"
        return f"{api_errors.SERVICE}/generate_content_free_tier_{name}"
    paid = {
        "requests_per_minute": "generate_requests_per_model",
        "input_tokens_per_minute": "generate_content_paid_tier_input_token_count",
        "requests_per_day": "generate_requests_per_model_per_day",
    }
    return f"{api_errors.SERVICE}/{paid[dimension]}"


def quota_id(dimension: Dimension, *, free_tier: bool) -> str:
    """The quota's name in a 429 body, by which clients tell minutes from days."""
    if dimension == "input_tokens_per_minute":
        if free_tier:
            return "GenerateContentInputTokensPerModelPerMinute-FreeTier"
        return "GenerateContentPaidTierInputTokensPerModelPerMinute"
    span = "Day" if dimension == "requests_per_day" else "Minute"
    return f"GenerateRequestsPer{span}PerProjectPerModel" + ("-FreeTier" if free_tier else "")


def refusal(quota: Quota, model: str, exceeded: list[Exceeded], retry_delay: str | None = None) -> Reply:
    """The 429 that names every limit broken; the longest wait of them is the ``retryDelay``."""
    if not quota.with_details:
        return api_errors.exhausted("Resource has been exhausted (e.g. check quota).")
    wait_seconds = max(item.wait_seconds for item in exceeded)
    delay = retry_delay or f"{math.floor(wait_seconds)}s"
    message, violations = api_errors.QUOTA_TEXT, []
    for item in exceeded:
        name = metric(item.dimension, free_tier=quota.free_tier)
        message += f"\n* Quota exceeded for metric: {name}, limit: {item.limit}, model: {model}"
        violation: api_errors.Detail = {
            "quotaMetric": name,
            "quotaId": quota_id(item.dimension, free_tier=quota.free_tier),
            "quotaDimensions": {"location": "global", "model": model},
        }
        if quota.with_quota_value:
            violation["quotaValue"] = str(item.limit)
        violations.append(violation)
    details = [api_errors.help_links(), api_errors.quota_failure(*violations)]
    if quota.with_retry_info:
        shown = retry_delay or f"{wait_seconds:.9f}s"
        message += f"\nPlease retry in {shown}."
        details.append(api_errors.retry_info(delay))
    return api_errors.exhausted(message, *details)


def _window(quota: Quota, limit: int | None, burst: int | None) -> Window | None:
    if limit is None:
        return None
    capacity = burst if quota.window == "token_bucket" and burst is not None else limit
    return Window(limit=limit, kind=quota.window, capacity=capacity)
