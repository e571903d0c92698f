"""How much was used in the last minute, in half-second buckets: as small for a million calls as for ten."""

SPAN_SECONDS = 60.0
"""The service counts by the minute (gemini-api/docs/rate-limits)."""

_BUCKET_SECONDS = 0.5
_BUCKETS = int(SPAN_SECONDS / _BUCKET_SECONDS)


class Recent:
    """A sum over the last minute."""

    def __init__(self) -> None:
        self._units = [0.0] * _BUCKETS
        self._newest = 0
        self._total = 0.0

    def add(self, units: float, *, at: float, now: float) -> None:
        """``units`` were used ``at`` (negative: were not, after all); older than the minute, they count no more."""
        self._move_to(now)
        bucket = int(at / _BUCKET_SECONDS)
        if bucket > self._newest - _BUCKETS:
            self._units[bucket % _BUCKETS] += units
            self._total += units

    def total(self, now: float) -> float:
        """Used within the last minute."""
        self._move_to(now)
        return max(0.0, self._total)

    def per_minute(self, now: float, *, over_seconds: float) -> float:
        """The rate of use over the last ``over_seconds``."""
        self._move_to(now)
        whole = int(over_seconds / _BUCKET_SECONDS)
        used = sum(self._units[(self._newest - back) % _BUCKETS] for back in range(whole + 1))
        covered_seconds = whole * _BUCKET_SECONDS + now % _BUCKET_SECONDS
        return max(0.0, used) * 60.0 / covered_seconds

    def _move_to(self, now: float) -> None:
        bucket = int(now / _BUCKET_SECONDS)
        if bucket <= self._newest:
            return
        for passed in range(max(self._newest, bucket - _BUCKETS) + 1, bucket + 1):
            self._total -= self._units[passed % _BUCKETS]
            self._units[passed % _BUCKETS] = 0.0
        self._newest = bucket
