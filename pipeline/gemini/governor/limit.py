"""One quota of the project, so many units a minute, known or not: paces calls, learns from refusals, probes upward.

A ceiling comes, in this order of trust, from the service (``quotaValue``), from what a whole minute took until the
first refusal, or from less than a minute; the last is a guess that grows fast until the next refusal. After that
the ceiling yields a step to every refusal and creeps up by as much in some 225 quiet calls: whatever the noise, and
whoever shares the quota, refusals settle below one in a hundred. A guess from a refusal that said nothing is put to the
trial (``trial.py``): was it a minute's quota that was used up, or a bucket that will have filled in a moment?

The numbers without another source are those of ``tests/benchmarks/governor_simulation.py``.
"""

import math

from pipeline.gemini.governor.pace import GATE_SECONDS, Rate
from pipeline.gemini.governor.recent import SPAN_SECONDS, Recent
from pipeline.gemini.governor.trial import Trial

MARGIN = 0.98
"""How near the ceiling calls are paced: three spare calls in a window of 150 outlast the network's jitter."""

START_SHARE = 0.9
"""Of a ceiling that an earlier run has learnt: others may use the project tonight."""

OVERSHOOT_SHARE = 0.6
"""Of the flow in which a bucket ran dry: part of it was the bucket's store."""

GUESS_SHARE = 0.85
"""Of the flow at each later refusal of that kind."""

PAUSE, OWN_PAUSE = 0.33, 0.15
"""What is left out after a refusal, in standard deviations of a minute's use: where others came in a row, and where
our own calls were larger than thought."""

REST_SECONDS = 0.25
OWN_SHARE = 0.85
"""From this part of a told ceiling on, it was our own calls that filled it."""

HOLD_SHARE, HOLD_SECONDS = 0.98, 0.5
"""Where our own calls of the last minute fill the ceiling to this part, nothing starts until some are older."""

FLOW_DELAY_SECONDS = 2.0
"""A ``RetryInfo`` below this, early in a run, means a bucket that fills steadily, not a window that ends."""

TRIAL_GATE_SECONDS, MOST_GATE_SECONDS = 1.0, 5.0
"""The gate after a silent refusal is short where it is to show what kind of quota it was; at most the longer one."""

AT_ONCE_SECONDS = 0.25
"""A refusal of a call that left so soon after the gate had opened: nothing flows, it is a window after all."""

FLOW_SECONDS = 2.0
MINUTE_GUESS_GROWTH = 1.25
FLOW_GUESS_GROWTH = 1.03
"""How a guess grows at each raise, by what it was made from."""

RAISE_SECONDS, RAISE_FACTOR = 5.0, 1.1
BUSY_SHARE = 0.7
"""Only a pace that was used to this part has proved anything."""

CUT_SECONDS, YOUNG_CUT_SECONDS, GUESS_CUT_SECONDS = 5.0, 2.5, 1.0
"""Cuts come no closer than this: a cut needs a while to show, less in a run's first minute, when others may turn out to
take much of what was told, and where the guess is known to be rough."""

CREEP_CALLS, CREEP_SECONDS, CREEP_FASTEST = 225, 60.0, 10.0
"""A step up takes so many calls and seconds without a refusal; the longer the quiet, the faster the next, for the
quota may have been raised, or others may have gone."""

TOLD_QUIET_CALLS, TOLD_QUIET_SECONDS = 1000, 600.0
"""What the service has told is doubted only after such a quiet."""


class Limit:
    """Requests, or input tokens, a minute. ``cap`` is the user's own and always holds; ``share`` is our part of the
    project's ceiling; ``known`` a ceiling learnt by an earlier run."""

    def __init__(self, *, cap: float | None = None, share: float = 1.0, known: float | None = None) -> None:
        self.ceiling = known
        """The project's, a minute; None where nothing is known."""
        self._cap = cap or math.inf
        self._share = share
        self._told: float | None = None
        self._growth = MINUTE_GUESS_GROWTH if known else None
        """Of a guess; None where the ceiling is no guess."""
        self._rate: Rate | None = None
        self._recent = Recent()
        self._recent_calls = Recent()
        self._first_at = self._cut_at = self._raised_at = self._quiet_since = -math.inf
        self._raised_units = 0.0
        self._raised_calls = self._quiet_calls = 0
        self._proved = False
        self._trial: Trial | None = None
        self._resumed_at = math.inf
        """When the first call after a cut was sent."""
        if known is not None:
            self._pace_at(START_SHARE * known * share)
        elif cap is not None:
            self._rate = Rate(cap)

    @property
    def per_minute(self) -> float | None:
        """The pace; None where nothing limits it."""
        return self._rate.per_minute if self._rate else None

    @property
    def is_capped(self) -> bool:
        """Whether the user's own cap is what paces."""
        return self._pace() >= self._cap

    @property
    def is_told(self) -> bool:
        """Whether the ceiling is the service's own word."""
        return self._told is not None and self.ceiling == self._told

    @property
    def gate_seconds(self) -> float:
        """How long a silent refusal closes the gate at first: until a slow bucket has room for a call."""
        least = GATE_SECONDS if self._growth is None else TRIAL_GATE_SECONDS
        return min(MOST_GATE_SECONDS, max(least, 60.0 / self._pace()))

    def wait(self, now: float) -> float:
        """Seconds until the next call may start."""
        if not self._rate:
            return 0.0
        held = self._is_full(now) and not (self._trial and self._trial.may_go(now))
        return max(self._rate.wait(now), HOLD_SECONDS if held else 0.0)

    def take(self, units: float, now: float) -> None:
        """A call of ``units`` starts."""
        if self._first_at == -math.inf:
            self._first_at = self._raised_at = self._quiet_since = now
        self._resumed_at = min(self._resumed_at, now)
        if self._trial and self._trial.may_go(now) and self._is_full(now):
            self._trial.go(now)
        self._recent.add(units, at=now, now=now)
        self._recent_calls.add(1.0, at=now, now=now)
        if self._rate:
            self._rate.take(units, now)
            self._raised_units += units
            self._raised_calls += 1
            if now - self._raised_at >= (GUESS_CUT_SECONDS if self._growth == FLOW_GUESS_GROWTH else RAISE_SECONDS):
                self._raise(now)

    def correct(self, units: float, *, sent_at: float, now: float) -> None:
        """A call took ``units`` more than was thought when it was sent (or less)."""
        self._recent.add(units, at=sent_at, now=now)
        if self._rate:
            self._rate.correct(units)

    def accepted(self, *, sent_at: float, now: float) -> None:
        """A call sent then was not refused."""
        self._proved = self._proved or sent_at > self._cut_at
        trial = self._trial
        if trial is None or not trial.accepted(sent_at=sent_at):
            return
        self._trial = None
        if self._is_young(now):
            self._first_at = now  # a minute with a pause in it would tell too little
            pace = min(self._cap, OVERSHOOT_SHARE * trial.flow * self._share)
            if self._rate and pace > self._pace():
                self._rate.quicken(pace, now)
            self._learn(trial.flow, OVERSHOOT_SHARE, FLOW_GUESS_GROWTH, now)

    def uncount(self, units: float, *, sent_at: float, now: float) -> None:
        """A call was refused: the service didn't count it."""
        self._recent.add(-units, at=sent_at, now=now)
        self._recent_calls.add(-1.0, at=sent_at, now=now)

    def refused(self, told: float | None, *, delay_seconds: float | None, sent_at: float, now: float) -> None:
        """This quota refused a call, and told its value or not. Calls that were out together cut once."""
        self._told = told or self._told
        self._quiet_since, self._quiet_calls = now, 0
        if self._trial:
            self._trial.refused(sent_at=sent_at)
        if sent_at <= self._cut_at:
            self._refine(now)
        elif now - self._cut_at < self._cut_seconds(now):
            return
        elif told is not None and (self.ceiling is None or self._pace() > told * self._share):
            self._learn(told, MARGIN, None, now)
            self._rest(now)
        elif self.ceiling is None or self._growth is not None:
            self._guess(delay_seconds, sent_at, now)
        else:
            self._yield(now)

    def rest_until(self, at: float) -> None:
        """The gate is closed until then."""
        if self._rate:
            self._rate.rest_until(at)

    def _guess(self, delay_seconds: float | None, sent_at: float, now: float) -> None:
        """The ceiling from what was sent."""
        first, young = self.ceiling is None, self._is_young(now)
        flows = young and (self._still_flows(sent_at) if delay_seconds is None else delay_seconds < FLOW_DELAY_SECONDS)
        if young and not flows and not self._proved and self._growth == MINUTE_GUESS_GROWTH:
            return  # the gate opened too early; of the pace that says nothing
        flow, pace = self._recent.per_minute(now, over_seconds=FLOW_SECONDS), self._pace()
        seen = flow if flows else self._recent.total(now)
        if seen < 1:
            return  # nothing was sent: others have used the quota, and how much of it is ours can't be told
        if not first:
            seen, flow = min(max(seen, 0.25 * pace), pace) / self._share, pace / self._share
        if flows:
            self._learn(seen, OVERSHOOT_SHARE if first else GUESS_SHARE, FLOW_GUESS_GROWTH, now)
        else:
            self._learn(seen, MARGIN, MINUTE_GUESS_GROWTH if young else None, now)
            self._trial = Trial(flow) if young and delay_seconds is None else None
            self._pause(PAUSE, now)

    def _still_flows(self, sent_at: float) -> bool:
        """Whether a refusal that says nothing leaves the belief in a bucket standing: calls before it were let in."""
        return self._growth == FLOW_GUESS_GROWTH and sent_at - self._resumed_at > AT_ONCE_SECONDS

    def _refine(self, now: float) -> None:
        """More of the calls that were out turn out refused: what was taken for accepted wasn't."""
        if self._growth == MINUTE_GUESS_GROWTH and self.ceiling is not None:
            seen = self._recent.total(now)
            if 1 <= seen < self.ceiling:
                self.ceiling = seen
                self._pace_at(min(self._pace(), MARGIN * seen * self._share))

    def _yield(self, now: float) -> None:
        """A refusal at a pace thought safe: a step down, and a pause that makes room in the window."""
        ceiling = self.ceiling or 0.0
        ours = self._used(now) * (1.0 + self._noise(now) ** 2) / self._share  # the refused one with them
        # far less was taken than expected: others take more; but it may also have been little for reasons of its own
        lower = max(ours, 0.8 * ceiling) if ours < 0.9 * ceiling else ceiling * (1.0 - self._step(now))
        self._learn(lower, MARGIN, None, now)
        by_chance = self._told is not None and ours >= OWN_SHARE * self._told
        self._pause(OWN_PAUSE if by_chance else PAUSE, now)

    def _used(self, now: float) -> float:
        """What a minute takes: the last one, or while there was none what came through since the last cut."""
        used = self._recent.total(now)
        if self._is_young(now):
            used = max(used, self._recent.per_minute(now, over_seconds=min(SPAN_SECONDS, now - self._cut_at)))
        return used

    def _cut_seconds(self, now: float) -> float:
        """How long no other cut follows one."""
        if self._growth is not None:
            return GUESS_CUT_SECONDS
        return YOUNG_CUT_SECONDS if self._is_young(now) else CUT_SECONDS

    def _rest(self, now: float) -> None:
        """What is empty now fills by no more than the margin: leave room for the network's jitter."""
        if self._rate:
            self._rate.rest(REST_SECONDS, now)

    def _pause(self, deviations: float, now: float) -> None:
        """Leave a few calls out: what filled the window will stay in it for a while, and so would refusals."""
        if self._rate:
            units = deviations * self._noise(now) * self._recent.total(now)
            self._rate.rest(units * 60.0 / self._rate.per_minute, now)

    def _learn(self, ceiling: float, share: float, growth: float | None, now: float) -> None:
        self.ceiling = ceiling
        self._growth = growth
        self._cut_at = now
        self._trial = None
        self._resumed_at = math.inf
        self._proved = False
        self._mark_raise(now)
        self._pace_at(share * ceiling * self._share)

    def _raise(self, now: float) -> None:
        calls, seconds, pace = self._raised_calls, now - self._raised_at, self._pace()
        busy = self._raised_units >= BUSY_SHARE * pace * seconds / 60.0
        self._mark_raise(now)
        if not busy or self.ceiling is None or (self._growth == MINUTE_GUESS_GROWTH and not self._proved):
            return
        self._quiet_calls += calls
        target = MARGIN * self.ceiling * self._share
        if pace < min(target, self._cap):
            self._pace_at(min(target, pace * max(RAISE_FACTOR, self._growth or 1.0)))
        else:
            self.ceiling = self._higher(self.ceiling, calls, seconds, now)
            self._pace_at(MARGIN * self.ceiling * self._share)

    def _higher(self, ceiling: float, calls: int, seconds: float, now: float) -> float:
        """The ceiling after ``calls`` in ``seconds`` without a refusal."""
        if self._growth is not None:
            return ceiling * self._growth
        quiet_seconds = now - self._quiet_since
        trusted = self._quiet_calls < TOLD_QUIET_CALLS or quiet_seconds < TOLD_QUIET_SECONDS
        haste = min(self._quiet_calls / CREEP_CALLS, quiet_seconds / CREEP_SECONDS, CREEP_FASTEST)
        part = min(calls / CREEP_CALLS, seconds / CREEP_SECONDS) * max(1.0, haste)
        higher = ceiling * (1.0 + self._step(now) * part)
        return min(higher, max(self._told, ceiling)) if self._told and trusted else higher

    def _step(self, now: float) -> float:
        """Two percent at a hundred calls a minute; less where more calls make less noise."""
        return min(0.05, max(0.005, 0.2 * self._noise(now)))

    def _noise(self, now: float) -> float:
        """By how much a minute's use differs from the next one's, where calls come by chance."""
        return 1.0 / math.sqrt(max(1.0, self._recent_calls.total(now)))

    def _is_young(self, now: float) -> bool:
        """Whether the run has not seen a whole minute."""
        return now - self._first_at < SPAN_SECONDS

    def _is_full(self, now: float) -> bool:
        """Whether the last minute took all that the ceiling allows."""
        return self.ceiling is not None and self._recent.total(now) >= HOLD_SHARE * self.ceiling * self._share

    def _pace(self) -> float:
        return self._rate.per_minute if self._rate else math.inf

    def _pace_at(self, per_minute: float) -> None:
        paced = min(per_minute, self._cap)
        if self._rate:
            self._rate.per_minute = paced
        else:
            self._rate = Rate(paced)

    def _mark_raise(self, now: float) -> None:
        self._raised_at, self._raised_units, self._raised_calls = now, 0.0, 0
