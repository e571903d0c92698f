"""How many calls may be out at once: opened by answers, closed by failures of the service; pure state."""

import math

from pipeline.moment import Hold

FIRST_SLOTS = 24
"""Calls out at once before anything has been answered. Each success opens one more: the number doubles with every
round of answers, fast where answers are fast (simulated on a bucket of 6,000 a minute: 1.06 of the ideal span;
growth by time: 1.48)."""

FEWEST_SLOTS = 16
"""So few calls overload nobody; fewer would make every recovery slow."""

TROUBLE_SHARE = 0.3
"""More failures than this among recent calls are overload."""

CALM_SHARE = 0.15
CUT_SHARE = 0.6
_WEIGHT = 0.1
"""Of one call in the share of failures: some ten calls are remembered."""

_STEEP_SHARE = 0.5
_STEEP_GROWTH, _GENTLE_GROWTH = 1.0, 0.15
"""Slots that a success opens, in the lower and the upper half of what the user allows: a quota is met with as many
refusals as calls leave too many while the first one is on its way."""


class Slots:
    """At most ``most`` at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(min(most, FIRST_SLOTS))
        self._steep_until = most * _STEEP_SHARE
        self._trouble = 0.0
        self._cut_at = -math.inf
        self.in_flight = 0

    @property
    def limit(self) -> int:
        """Most calls out at once now."""
        return int(self._limit)

    def free(self) -> bool:
        """Whether one more may go out."""
        return self.in_flight < self.limit

    def held_by(self) -> Hold:
        """Why there are no more of them."""
        if self.limit >= self._most:
            return Hold.CONCURRENCY
        return Hold.SLOW_START if self._cut_at == -math.inf else Hold.OVERLOAD

    def succeeded(self) -> None:
        """A call was answered."""
        self._trouble *= 1.0 - _WEIGHT
        if self._limit < self._steep_until:
            growth = _STEEP_GROWTH
        else:
            growth = _GENTLE_GROWTH if self._trouble < CALM_SHARE else 0.0
        self._limit = min(self._most, self._limit + growth)

    def failed(self, *, sent_at: float, now: float) -> None:
        """The service failed a call; calls that were out together close slots once."""
        self._trouble += _WEIGHT * (1.0 - self._trouble)
        if self._trouble > TROUBLE_SHARE:
            self.cut(sent_at=sent_at, now=now)

    def cut(self, *, sent_at: float, now: float) -> None:
        """Too many were out. A few alone, such as the probes of an outage, say nothing of how many are too many."""
        if sent_at > self._cut_at and self.in_flight >= min(FEWEST_SLOTS, self._most):
            self._steep_until = min(self._steep_until, self._limit / 2)
            self._limit = max(float(min(FEWEST_SLOTS, self._most)), CUT_SHARE * self.in_flight)
            self._cut_at = now


RETRIES_AT_FIRST = 10.0
RETRIES_PER_SUCCESS = 0.1
RETRIES_MOST = 100.0
RETRIES_PER_SECOND = 2.0
"""A trickle that troubles no service, so that the last items of a run need no success of others and a run of a few
hundred does not wait a minute for them; the rest is the retry budget of the SRE book (10 % of requests, chapter 21)."""

RETRIES_OWED = 120.0
"""Nobody waits longer than the trickle takes for so many (a minute), and no more are made up for: hundreds of workers
in a partial outage of hours would else owe so many that every stray failure after it costs a minute."""


class RetryBudget:
    """How many failures of the service may be sent again: a service in trouble must not get twice the calls."""

    def __init__(self) -> None:
        self._left = RETRIES_AT_FIRST
        self._at: float | None = None

    def succeeded(self) -> None:
        """A call was answered."""
        self._left = min(RETRIES_MOST, self._left + RETRIES_PER_SUCCESS)

    def take(self, now: float) -> float:
        """One call is to be sent again; the seconds it has to wait for its part of the budget."""
        if self._at is not None:
            self._left = min(RETRIES_MOST, self._left + RETRIES_PER_SECOND * (now - self._at))
        self._at = now
        self._left = max(-RETRIES_OWED, self._left - 1.0)
        return max(0.0, -self._left) / RETRIES_PER_SECOND
