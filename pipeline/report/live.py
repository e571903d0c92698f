"""What a run that is on leaves in its ledger for ``pipeline status``: figures of this moment and of the run so far."""

from collections import deque
from typing import Final

import msgspec

from pipeline.report.bottleneck import Bottleneck
from pipeline.report.loop_lag import LagMs
from pipeline.report.occupancy import StageUse
from pipeline.report.refusals import Quota

PROGRESS: Final = "progress"
"""Name under which it is learnt (``Ledger.learn``)."""

RATE_SECONDS: Final = 60.0
"""The span of which rates speak."""


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """A run at a moment. ``done`` and ``left`` are of this run's items: those that were read so far and are sent."""

    updated_at: str
    started_at: str
    done: int
    failed: int
    left: int
    items_per_second: float
    requests_per_minute: float
    """Without those that were refused."""
    in_flight: int
    held_by: str | None
    """What generate calls that could go out wait for just now."""
    requests: int
    retries: int
    refused: int
    bytes_uploaded: int
    bottleneck: Bottleneck = Bottleneck()
    stages: dict[str, StageUse] = {}
    quotas: dict[str, dict[str, Quota]] = {}
    retries_by_cause: dict[str, dict[str, int]] = {}
    loop_lag_ms: LagMs = LagMs()
    loop_busy_share: float = 0.0


def read_live(text: str | None) -> Live | None:
    """What was left; None where there is nothing, or nothing that can be read."""
    try:
        return msgspec.json.decode(text, type=Live) if text else None
    except (msgspec.MsgspecError, ValueError):
        return None


class Rate:
    """How fast a count has grown lately."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque([(0.0, 0)])

    def per_second(self, count: int, *, at: float) -> float:
        """The count is ``count`` at ``at`` seconds of the run; not to be asked more than a few times a second."""
        while len(self._seen) > 1 and self._seen[1][0] <= at - RATE_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        self._seen.append((at, count))
        return (count - before) / (at - since) if at > since else 0.0
