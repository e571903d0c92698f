"""What the service refused by which quota, what was sent again and why, and the limits learnt from it."""

from typing import Final

import msgspec

from pipeline.clock import Clock, timestamp
from pipeline.events import OFTEN, Event, LimitLearnt, Listener, Refused, Retrying
from pipeline.gemini.api import Route

HISTORY_POINTS: Final = 32
"""Of a limit's history; a longer one loses every second point, so that it still spans the run."""

FILE_API: Final = "File API"
"""Whom calls without a model ask."""

_STAGES: Final[dict[str, str]] = {
    Route.UPLOAD_START: "upload",
    Route.UPLOAD_CHUNK: "upload",
    Route.UPLOAD_QUERY: "upload",
    Route.FILE_GET: "activation",
    Route.GENERATE: "generation",
}


class LearntAt(msgspec.Struct, frozen=True):
    """A limit at a moment."""

    at: str
    limit: int


class Quota(msgspec.Struct, kw_only=True):
    """What is known of one quota. ``limit`` is None where it only refused; ``is_told``: the service named it."""

    limit: int | None = None
    is_told: bool = False
    refused: int = 0
    history: list[LearntAt] = []


class Refusals:
    """The observer of what is rare; hot events are none of its business."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.quotas: dict[str, dict[str, Quota]] = {}
        """By model and quota."""
        self.retries_by_cause: dict[str, dict[str, int]] = {}
        """By stage and cause."""

    def listener(self, kind: type[Event]) -> Listener | None:
        """What is to be told of events of this kind."""
        return None if kind in OFTEN else self.notify

    def notify(self, event: Event) -> None:
        """Take note of ``event``."""
        match event:
            case Refused():
                for quota in event.quotas:
                    self._quota(event.model, quota).refused += 1
            case LimitLearnt():
                self._learn(event)
            case Retrying():
                causes = self.retries_by_cause.setdefault(_STAGES.get(event.route, event.route), {})
                causes[event.cause] = causes.get(event.cause, 0) + 1

    def _learn(self, event: LimitLearnt) -> None:
        quota = self._quota(event.model, event.quota)
        quota.limit, quota.is_told = event.per_minute, event.is_told
        if len(quota.history) >= HISTORY_POINTS:
            del quota.history[1::2]
        quota.history.append(LearntAt(timestamp(self._clock.now()), event.per_minute))

    def _quota(self, model: str, quota: str) -> Quota:
        return self.quotas.setdefault(model or FILE_API, {}).setdefault(quota, Quota())
