"""Ends calls that last too long, with one timer for all of them.

A timer for each call, as aiohttp and asyncio set them, is 5 % of what an item costs at zero latency; nearly all of them
are taken down again long before they would ring.
"""

import asyncio
import math
from types import TracebackType


class TimeLimits:
    """Of all calls that are out on one event loop."""

    def __init__(self) -> None:
        self._limits: set[_TimeLimit] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    def of(self, seconds: float) -> "_TimeLimit":
        """A context whose body is cancelled after ``seconds``; it raises ``TimeoutError`` then."""
        return _TimeLimit(self, seconds)

    def add(self, limit: "_TimeLimit") -> None:
        """Watch over ``limit`` from now on."""
        self._limits.add(limit)
        if limit.ends_at < self._rings_at:
            self._set(limit.ends_at)

    def discard(self, limit: "_TimeLimit") -> None:
        """Its body has ended. The timer stays: who comes next would set it again."""
        self._limits.discard(limit)

    def close(self) -> None:
        """Take the timer down."""
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, at: float) -> None:
        self.close()
        self._rings_at = at
        self._timer = None if math.isinf(at) else asyncio.get_running_loop().call_at(at, self._ring)

    def _ring(self) -> None:
        for limit in [limit for limit in self._limits if limit.ends_at <= self._rings_at]:
            self._limits.discard(limit)
            limit.expire()
        self._set(min((limit.ends_at for limit in self._limits), default=math.inf))


class _TimeLimit:
    """Of one call. Cancels as ``asyncio.timeout`` does, so that a cancellation from outside stays one."""

    __slots__ = ("_cancelling", "_expired", "_limits", "_seconds", "_task", "ends_at")

    def __init__(self, limits: TimeLimits, seconds: float) -> None:
        self._limits = limits
        self._seconds = seconds
        self._expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - calls are made by tasks
        self._task = task
        self._cancelling = task.cancelling()
        self.ends_at = asyncio.get_running_loop().time() + self._seconds
        self._limits.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limits.discard(self)
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Its time is over."""
        self._expired = True
        self._task.cancel()
