"""When the next call may start: rates by GCRA, and the gate; pure state over (event, now)."""

from datetime import date, datetime, timedelta, timezone, tzinfo

GATE_SECONDS = 2.0
"""How long a refusal without a believable delay closes the gate at first; doubles while refusals go on. Simulated, 5 s
cost a quota of 1,000 a minute six in a hundred calls."""

GATE_MAX_SECONDS = 60.0
DOUBTED_SECONDS = 0.25
"""A delay that was told and waited for in vain is at least this at the next refusal, and doubles: "0s" occurs."""

SPREAD_SHARE = 0.1
"""The part of the gate's closing over which the first calls after it are spread, so that they don't come at once."""

LATENESS_SECONDS = 1.0
"""The lag of a busy event loop that a pace makes up for: of a minute it is less than the margin below a ceiling."""

_SPREAD_CALLS = 64


class Rate:
    """At most ``per_minute`` units a minute, evenly: the generic cell rate algorithm.

    A call that comes late by no more than a timer's lag does not delay those behind it; longer idleness earns nothing.
    """

    def __init__(self, per_minute: float) -> None:
        self._free_at = 0.0
        self.per_minute = per_minute

    def wait(self, now: float) -> float:
        """Seconds until the next call conforms."""
        return max(0.0, self._free_at - now)

    def take(self, units: float, now: float) -> None:
        """A call of ``units`` starts."""
        since = self._free_at if now - self._free_at <= LATENESS_SECONDS else now
        self._free_at = since + units * 60.0 / self.per_minute

    def rest(self, seconds: float, now: float) -> None:
        """Nothing starts for so much longer than the pace asks for."""
        self._free_at = max(self._free_at, now) + seconds

    def quicken(self, per_minute: float, now: float) -> None:
        """From now on at another pace, also for what the calls so far have to be waited for."""
        self._free_at = min(self._free_at, now + self.wait(now) * self.per_minute / per_minute)
        self.per_minute = per_minute

    def rest_until(self, at: float) -> None:
        """Nothing starts before, and what was not sent until then is not made up for."""
        self._free_at = max(self._free_at, at)

    def correct(self, units: float) -> None:
        """A call that has started took ``units`` more than was thought (or less)."""
        self._free_at += units * 60.0 / self.per_minute


class Gate:
    """Closed for every call alike when the service refuses one for quota."""

    def __init__(self) -> None:
        self._until = self._spread_until = self._next = 0.0
        self._closed_at = float("-inf")
        self._refusals = 0
        self._in_vain = 0
        """Of the refusals, those since anything at all was let in."""
        self._first_seconds = GATE_SECONDS

    def wait(self, now: float) -> float:
        """Seconds until the next call may pass."""
        if now < self._until:
            return self._until - now
        return max(0.0, self._next - now) if now < self._spread_until else 0.0

    def take(self, now: float) -> None:
        """A call passes."""
        if now < self._spread_until:
            self._next = now + (self._spread_until - self._until) / _SPREAD_CALLS

    def refuse(
        self, delay_seconds: float | None, *, sent_at: float, now: float, first_seconds: float = GATE_SECONDS
    ) -> float:
        """The service refused a call sent ``sent_at``: close for its delay, or where it names none for a growing
        while, at first ``first_seconds``. A delay that was waited for in vain grows, too. Returns the seconds now left;
        a refusal of a call that left before the gate closed doubles nothing."""
        if sent_at > self._closed_at:
            self._refusals += 1
            self._in_vain += 1
            self._closed_at = now
            self._first_seconds = first_seconds
        if delay_seconds is None:
            delay_seconds = _growing(self._first_seconds, self._refusals - 1)
            until = self._closed_at + delay_seconds
        else:
            if self._in_vain > 1:
                delay_seconds = max(delay_seconds, _growing(DOUBTED_SECONDS, self._in_vain - 2))
            until = now + delay_seconds
        if until > self._until:
            self._until = self._next = until
            self._spread_until = until + SPREAD_SHARE * delay_seconds
        return max(0.0, self._until - now)

    def accept(self, *, sent_at: float) -> None:
        """A call sent then was not refused; one that had left before the gate closed says nothing of a silent gate."""
        self._in_vain = 0
        if sent_at > self._closed_at:
            self._refusals = 0


def _growing(seconds: float, doublings: int) -> float:
    return min(GATE_MAX_SECONDS, seconds * 2.0 ** min(doublings, 10))


class DayCount:
    """Requests of one quota day, which ends at midnight Pacific time (gemini-api/docs/rate-limits)."""

    def __init__(self, limit: int, used: int = 0, at: datetime | None = None) -> None:
        self._limit = limit
        self._day = pacific_day(at) if at else None
        self._used = self._told = used

    def take(self, now: datetime) -> bool:
        """Count one more; tells whether the day had room for it."""
        day = pacific_day(now)
        if day != self._day:
            self._day, self._used, self._told = day, 0, 0
        if self._used >= self._limit:
            return False
        self._used += 1
        return True

    def news(self, now: datetime) -> int | None:
        """The day's count, where it has changed since this was asked last."""
        if self._used == self._told or pacific_day(now) != self._day:
            return None
        self._told = self._used
        return self._used


def pacific_day(now: datetime) -> date:
    """The quota day that ``now`` belongs to."""
    return now.astimezone(_pacific()).date()


def _pacific() -> tzinfo:
    """Without a time zone database winter time is near enough."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo("America/Los_Angeles")
    except ZoneInfoNotFoundError:
        return timezone(timedelta(hours=-8))
