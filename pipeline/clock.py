"""Wall-clock time as an argument: the 48-hour rule must be testable without waiting 48 hours.

Only the wall clock is injected. Sleeps and deadlines use the event loop's time, which tests replace by another loop.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the wall-clock time."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class ManualClock:
    """A clock that moves only when told to."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move forward by ``seconds`` (backward if negative)."""
        self._now += timedelta(seconds=seconds)


def monotonic() -> float:
    """The event loop's time in seconds: what ``anyio.current_time`` tells, without asking which library runs it."""
    return asyncio.get_running_loop().time()


def timestamp(moment: datetime) -> str:
    """``moment`` as the result line writes it: RFC 3339, UTC, milliseconds, ``Z``."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds")[: -len("+00:00")] + "Z"
