"""How late the event loop serves a timer: percentiles of any number of probes in the room of a few hundred."""

import math
from typing import Final

import msgspec

_FINEST_SECONDS: Final = 0.0001
_GROWTH: Final = 1.1
"""Each bucket is a tenth wider than the one before: so near are the percentiles."""

_BUCKETS: Final = 170
"""Up to a quarter of an hour; what is later counts as that."""

_CATCH_UP: Final = 1000
"""Most probes that one stall counts for."""


class LagMs(msgspec.Struct, frozen=True, kw_only=True):
    """Lag in milliseconds."""

    p50: float = 0.0
    p99: float = 0.0
    max: float = 0.0


class LoopLag:
    """Lags of a probe that wants to be served every ``interval_seconds``."""

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._counts = [0] * _BUCKETS
        self._total = 0
        self._max_seconds = 0.0

    def add(self, lag_seconds: float) -> None:
        """One probe came so late; those that were due meanwhile would have come late too, and are counted."""
        self._max_seconds = max(self._max_seconds, lag_seconds)
        for _ in range(_CATCH_UP):
            self._counts[_bucket(lag_seconds)] += 1
            self._total += 1
            lag_seconds -= self._interval_seconds
            if lag_seconds <= 0:
                return

    def percentiles(self) -> LagMs:
        """What has been seen so far."""
        return LagMs(p50=self._ms(0.50), p99=self._ms(0.99), max=round(1000 * self._max_seconds, 1))

    def _ms(self, share: float) -> float:
        """The lag that ``share`` of the probes don't exceed, as the upper edge of its bucket."""
        left = share * self._total
        for bucket, count in enumerate(self._counts):
            left -= count
            if count and left <= 0:
                return round(1000 * min(self._max_seconds, _FINEST_SECONDS * _GROWTH**bucket), 1)
        return 0.0


def _bucket(seconds: float) -> int:
    """The first bucket whose upper edge is not below ``seconds``."""
    if seconds <= _FINEST_SECONDS:
        return 0
    return min(_BUCKETS - 1, math.ceil(math.log(seconds / _FINEST_SECONDS) / math.log(_GROWTH)))
