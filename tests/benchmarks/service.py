"""What the benchmark server is told of the service that it plays, and what it tells of what it did."""

import random
from typing import Literal

import msgspec

from pipeline.emulator.plan import Quota

PROMPT_TOKENS = 1125
"""Input tokens of every call, whatever was sent."""


class Seconds(msgspec.Struct, frozen=True, kw_only=True):
    """A latency: even between ``low`` and ``high``, or lognormal round ``median`` and clipped to them."""

    low: float = 0.0
    high: float = 0.0
    median: float | None = None
    sigma: float = 0.5

    def draw(self, chance: random.Random) -> float:
        """One call's."""
        if self.median is None:
            return chance.uniform(self.low, self.high) if self.high else 0.0
        return min(self.high, max(self.low, self.median * chance.lognormvariate(0, self.sigma)))


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One service. Spans of time count from the first generate call."""

    upload_seconds: float = 0.0
    """The call that ends an upload."""
    processing_seconds: float = 0.0
    """How long a new video is PROCESSING."""
    generate: Seconds = Seconds()
    refusal_seconds: float = 0.1
    quota: Quota | None = None
    """Counted and refused by the emulator's own code."""
    window_phase_seconds: float = 0.0
    """How far into a minute of the quota the first call comes."""
    others_rpm: float = 0.0
    """Calls of other programs with the same key."""
    outage: tuple[float, float] | None = None
    """Every generate call between these is answered with 503."""
    trouble_share: float = 0.0
    """Share of generate calls that are answered with 503 at any time."""

    def window(self) -> tuple[Literal["fixed", "sliding", "token_bucket"], float, float, float]:
        """Kind, calls a minute, calls at once and units a call of the limit that binds."""
        quota = self.quota or Quota()
        limit = float(quota.requests_per_minute or quota.input_tokens_per_minute or 0)
        burst = float(quota.burst) if quota.burst and quota.window == "token_bucket" else limit
        return quota.window, limit, burst, 1.0 if quota.requests_per_minute else float(PROMPT_TOKENS)


class Report(msgspec.Struct, kw_only=True):
    """What a server did in one run of one contestant. Moments are of the machine's monotonic clock."""

    calls: int = 0
    generate_calls: int = 0
    accepted: int = 0
    refused: int = 0
    unavailable: int = 0
    files: int = 0
    received_bytes: int = 0
    upload_seconds: float = 0.0
    """Service time of all uploads together; likewise the next."""
    generate_seconds: float = 0.0
    longest_path_seconds: float = 0.0
    """Service time of the item that took longest: upload, processing and generation."""
    first_call_at: float | None = None
    first_generate_at: float | None = None
    last_answer_at: float = 0.0
    busy_share: float = 0.0
    """CPU of the server between the first call and the last answer, of one core. Near 1 it flatters every ratio."""
    accepted_each_second: list[int] = []

    @property
    def span_seconds(self) -> float:
        """From the first generate call to the last answer."""
        return self.last_answer_at - (self.first_generate_at or self.last_answer_at)

    @property
    def refused_share(self) -> float:
        """Of generate calls, those answered with 429."""
        return self.refused / self.generate_calls if self.generate_calls else 0.0
