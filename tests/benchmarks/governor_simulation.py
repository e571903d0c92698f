"""The governor's pure core against simulated services, in virtual time.

``python -m tests.benchmarks.governor_simulation`` prints the table; ``--json`` the figures.

Workers never lack items; latencies are lognormal; the service counts by the emulator's own windows. What is printed
is the worst of the seeds, against the bar that the governor has to clear.
"""

import argparse
import heapq
import json
import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from pipeline.emulator.quota import Window
from pipeline.gemini.governor.lane import Lane, Told
from pipeline.gemini.governor.limit import Limit
from pipeline.gemini.governor.slots import RetryBudget, Slots
from pipeline.gemini.health import Health, Patience

WARM_UP_SECONDS = 60.0
REFUSAL_SECONDS = (0.05, 0.2)
UPLINK_SECONDS = (0.01, 0.08)


@dataclass(frozen=True)
class Scenario:
    """One service, one client, and the bar."""

    name: str
    rpm: int | None = 150
    tpm: int | None = None
    window: Literal["fixed", "sliding", "token_bucket"] = "sliding"
    burst: int | None = None
    tells_value: bool = True
    tells_delay: bool = True
    workers: int = 64
    latency: Callable[[random.Random], float] = lambda chance: chance.lognormvariate(math.log(7), 0.6)
    others_rpm: float = 0.0
    trouble_rate: float = 0.0
    outage: tuple[float, float] | None = None
    minutes: float = 35.0
    items: int | None = None
    known_rpm: float | None = None
    least_goodput: float = 0.93
    most_refused: float = 0.01
    most_over_ideal: float | None = None
    """Where a number of items is given: how much longer than the ideal they may take."""


def fast(chance: random.Random) -> float:
    """A small model's answer to a small picture."""
    return chance.uniform(0.3, 0.7)


SCENARIOS = [
    Scenario("fixed window 150 RPM", window="fixed"),
    Scenario("sliding 150 RPM"),
    Scenario("token bucket 150 RPM", window="token_bucket"),
    Scenario("sliding 10 RPM", rpm=10, most_refused=0.03),
    Scenario("sliding 1000 RPM", rpm=1000, workers=256),
    Scenario("sliding 150 RPM, no quotaValue", tells_value=False),
    Scenario("sliding 10 RPM, no quotaValue", rpm=10, tells_value=False, most_refused=0.03),
    Scenario("150 RPM, no RetryInfo, no quotaValue", tells_value=False, tells_delay=False),
    Scenario("fixed, no RetryInfo, no quotaValue", window="fixed", tells_value=False, tells_delay=False),
    Scenario("bucket, no RetryInfo, no quotaValue", window="token_bucket", tells_value=False, tells_delay=False),
    Scenario("bucket of 10, no quotaValue", window="token_bucket", burst=10, tells_value=False),
    Scenario("TPM 120,000", rpm=None, tpm=120_000),
    Scenario("TPM 120,000, no quotaValue", rpm=None, tpm=120_000, tells_value=False, least_goodput=0.90),
    Scenario("others use 50 of 150 RPM", others_rpm=50, least_goodput=0.90),
    Scenario("others use 50 of 150, no quotaValue", others_rpm=50, tells_value=False, least_goodput=0.90),
    Scenario(
        "others use 200 of 600 RPM, five minutes of haste",
        rpm=600,
        window="token_bucket",
        burst=50,
        latency=fast,
        others_rpm=200,
        minutes=5.0,
        least_goodput=0.90,
        most_refused=0.02,
    ),
    Scenario("2 % 503 and 5 min outage", trouble_rate=0.02, outage=(900.0, 1200.0), least_goodput=0.90),
    Scenario("quota never reached", rpm=100_000),
    Scenario("150 RPM, 200 learnt yesterday", known_rpm=200),
    Scenario("150 RPM, 50 learnt yesterday", known_rpm=50),
    Scenario(
        "bucket 6,000 RPM, 2,000 fast items",
        rpm=6000,
        window="token_bucket",
        burst=100,
        workers=128,
        latency=fast,
        items=2000,
        most_refused=0.02,
        most_over_ideal=0.10,
    ),
]
SCENARIOS.append(
    replace(
        SCENARIOS[-1],
        name="bucket 6,000 RPM, 20,000 fast items",
        items=20_000,
        most_refused=0.005,
        most_over_ideal=0.04,
    )
)
SCENARIOS += [replace(one, name=f"{one.name}, no quotaValue", tells_value=False) for one in SCENARIOS[-2:]]

SILENT = Scenario("", tells_value=False, tells_delay=False)
"""No RetryInfo, no quotaValue; a bucket and a window look the same until a call goes where none should."""

RUSH = replace(
    SILENT, name="bucket 6,000 RPM, 2,000 fast items, silent", rpm=6000, window="token_bucket", burst=100, workers=128
)
RUSH = replace(RUSH, latency=fast, items=2000, most_refused=0.03, most_over_ideal=0.3)
SCENARIOS += [
    RUSH,
    replace(
        RUSH, name="bucket 6,000 RPM, 20,000 fast items, silent", items=20_000, most_refused=0.005, most_over_ideal=0.06
    ),
    replace(SILENT, name="sliding 1000 RPM, silent", rpm=1000, workers=256),
    replace(SILENT, name="fixed 1000 RPM, silent", rpm=1000, workers=256, window="fixed"),
    replace(SILENT, name="bucket 1000 RPM, silent", rpm=1000, workers=256, window="token_bucket"),
    replace(SILENT, name="bucket 1000 RPM, burst 50, silent", rpm=1000, workers=256, window="token_bucket", burst=50),
    replace(SILENT, name="bucket 150 RPM, burst 10, silent", window="token_bucket", burst=10),
    replace(SILENT, name="sliding 1000 RPM, fast items, silent", rpm=1000, workers=128, latency=fast),
    replace(SILENT, name="fixed 1000 RPM, fast items, silent", rpm=1000, workers=128, latency=fast, window="fixed"),
    replace(SILENT, name="sliding 10 RPM, silent", rpm=10, most_refused=0.03),
    replace(SILENT, name="others use 50 of 150 RPM, silent", others_rpm=50, least_goodput=0.90),
]


@dataclass(frozen=True)
class Figures:
    """What one run came to. Shares are of 1."""

    scenario: str
    goodput: float
    refused: float
    warm_up_seconds: float
    recovery_seconds: float | None
    over_ideal: float | None
    failed_items: int
    inside_gate: int
    most_in_flight: int

    def within(self, bar: Scenario) -> bool:
        """Whether the bar is cleared."""
        return (
            self.refused <= bar.most_refused
            and self.failed_items == self.inside_gate == 0
            and self.most_in_flight <= bar.workers
            and self.warm_up_seconds <= 60.0
            and (self.recovery_seconds or 0.0) <= 60.0
            and (self.goodput >= bar.least_goodput if bar.items is None else self.over_ideal <= bar.most_over_ideal)  # type: ignore[operator]
        )


@dataclass(order=True)
class Step:
    """Something that happens at a time."""

    at: float
    order: int
    act: Callable[[], None] = field(compare=False)


class Service:
    """Counts what comes, by the emulator's windows, from us and from others."""

    def __init__(self, one: Scenario, chance: random.Random) -> None:
        capacity = float(one.burst) if one.burst else None
        phase = chance.uniform(0, 60)
        self._phase = phase
        self.requests = Window(one.rpm, one.window, capacity or one.rpm) if one.rpm else None
        self.tokens = Window(one.tpm, one.window, one.tpm) if one.tpm else None
        self._one = one
        self._chance = chance
        self._other_at = 0.0

    def admit(self, tokens: float, now: float) -> Told | None:
        """None where the call is let in."""
        self._others(now)
        now += self._phase
        waits = [w.wait_seconds(n, now) if w else 0.0 for w, n in ((self.requests, 1.0), (self.tokens, tokens))]
        if max(waits) == 0.0:
            for window, units in ((self.requests, 1.0), (self.tokens, tokens)):
                if window:
                    window.take(units, now)
            return None
        one = self._one
        return Told(
            delay_seconds=max(waits) if one.tells_delay else None,
            by_requests=waits[0] > 0,
            by_tokens=waits[1] > 0,
            requests=one.rpm if one.tells_value else None,
            tokens=one.tpm if one.tells_value else None,
        )

    def _others(self, now: float) -> None:
        while self._one.others_rpm and self.requests and self._other_at <= now:
            if self._other_at and self.requests.wait_seconds(1.0, self._other_at + self._phase) == 0.0:
                self.requests.take(1.0, self._other_at + self._phase)
            self._other_at += self._chance.expovariate(self._one.others_rpm / 60.0)


class Tokens(NamedTuple):
    """Of one call."""

    estimate: int
    actual: int
    charged: float


class Simulation:
    """One client before one service."""

    def __init__(self, one: Scenario, seed: int) -> None:
        self.one = one
        self.chance = random.Random(seed)
        self.now = 0.0
        self.service = Service(one, self.chance)
        self.lane = Lane(Limit(known=one.known_rpm), Limit(), jitter=self.chance.random)
        self.slots = Slots(one.workers)
        self.budget = RetryBudget()
        self.health = Health(Patience())
        self.steps: list[Step] = []
        self.order = 0
        self.ready = [(f"w{n}", 0) for n in range(one.workers)]
        self.begun = one.workers
        self.accepted: list[tuple[float, float]] = []
        self.sent = self.refused = self.failed = self.inside_gate = self.most = self.done = 0
        self.gate_until = -math.inf
        self.wake_at = math.inf
        self.seconds = one.minutes * 60.0

    def run(self) -> Figures:
        """Until the time is over or the items are done."""
        self.dispatch()
        while self.steps and self.steps[0].at <= self.seconds:
            if self.one.items is not None and self.done >= self.one.items:
                break
            step = heapq.heappop(self.steps)
            self.now = step.at
            step.act()
            self.dispatch()
        return self.figures()

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        self.order += 1
        heapq.heappush(self.steps, Step(self.now + seconds, self.order, act))

    def dispatch(self) -> None:
        while self.ready and self.slots.free():
            wait = max(self.lane.wait(self.now), self.health.admit(self.ready[0][0], self.now))
            if wait > 1e-6:
                self.wake(wait)
                return
            self.send(*self.ready.pop(0))

    def wake(self, wait: float) -> None:
        if not self.now < self.wake_at <= self.now + wait:
            self.wake_at = self.now + wait
            self.later(wait, lambda: None)

    def send(self, subject: str, failures: int) -> None:
        self.sent += 1
        self.inside_gate += self.now < self.gate_until
        self.slots.in_flight += 1
        self.most = max(self.most, self.slots.in_flight)
        estimate = int(self.chance.lognormvariate(math.log(1200), 0.5))
        actual = int(estimate * self.chance.lognormvariate(math.log(0.8), 0.25))
        tokens = Tokens(estimate, actual, self.lane.start(estimate, self.now))
        sent_at = self.now
        self.later(
            self.chance.uniform(*UPLINK_SECONDS),
            lambda: self.arrive(subject, failures, tokens, sent_at),
        )

    def arrive(self, subject: str, failures: int, tokens: Tokens, sent_at: float) -> None:
        outage = self.one.outage
        down = outage is not None and outage[0] <= self.now < outage[1]
        quick = self.chance.uniform(*REFUSAL_SECONDS)
        if down or self.chance.random() < self.one.trouble_rate:
            self.later(quick, lambda: self.fail(subject, failures, sent_at))
        elif told := self.service.admit(tokens.actual, self.now):
            self.later(quick, lambda: self.refuse(subject, failures, told, tokens, sent_at))
        else:
            self.accepted.append((self.now, float(tokens.actual)))
            self.later(self.one.latency(self.chance), lambda: self.succeed(subject, tokens, sent_at))

    def succeed(self, subject: str, tokens: Tokens, sent_at: float) -> None:
        self.done += 1
        self.health.succeeded(sent_at=sent_at)
        self.lane.succeeded(sent_at=sent_at, now=self.now)
        self.lane.counted(tokens.estimate, tokens.actual, charged=tokens.charged, sent_at=sent_at, now=self.now)
        self.budget.succeeded()
        self.slots.succeeded()
        self.slots.in_flight -= 1
        self.next()

    def refuse(self, subject: str, failures: int, told: Told, tokens: Tokens, sent_at: float) -> None:
        self.refused += 1
        self.lane.refused(told, charged=tokens.charged, sent_at=sent_at, now=self.now)
        if told.delay_seconds is not None:
            self.gate_until = max(self.gate_until, self.now + told.delay_seconds)
        self.slots.in_flight -= 1
        self.ready.append((subject, failures))

    def fail(self, subject: str, failures: int, sent_at: float) -> None:
        self.health.failed(subject, self.now, never_connected=False)
        self.slots.failed(sent_at=sent_at, now=self.now)
        self.slots.in_flight -= 1
        failures += not self.health.in_outage
        if failures >= 6:
            self.failed += 1
            self.next()
            return
        wait = self.chance.uniform(0, Patience().backoff_cap(failures))
        wait += 0.0 if self.health.in_outage else self.budget.take(self.now)
        self.later(wait, lambda: self.ready.append((subject, failures)))

    def next(self) -> None:
        if self.one.items is None or self.begun < self.one.items:
            self.begun += 1
            self.ready.append((f"w{self.begun}", 0))

    def figures(self) -> Figures:
        one = self.one
        ideal = (one.items - (one.burst or 0)) * 60.0 / one.rpm if one.items and one.rpm else None
        return Figures(
            scenario=one.name,
            goodput=self.goodput(),
            refused=self.refused / self.sent,
            warm_up_seconds=self.reached(0.0, 5.0 if one.items else 30.0),
            recovery_seconds=self.reached(one.outage[1], 10.0) if one.outage else None,
            over_ideal=self.now / ideal - 1.0 if ideal else None,
            failed_items=self.failed,
            inside_gate=self.inside_gate,
            most_in_flight=self.most,
        )

    def quota(self) -> float:
        """What may be had each minute, in the units that bind."""
        one = self.one
        if one.tpm:
            return one.tpm
        mean = 7 * math.exp(0.18) if one.latency is not fast else 0.5
        possible = one.workers / mean * 60.0
        return min(possible, (one.rpm or math.inf) - one.others_rpm)

    def goodput(self) -> float:
        """After warm-up, of the quota less what an outage took."""
        end = self.seconds if self.one.items is None else self.now
        outage = self.one.outage or (0.0, 0.0)
        got = sum(tokens if self.one.tpm else 1.0 for at, tokens in self.accepted if WARM_UP_SECONDS <= at < end)
        minutes = (end - WARM_UP_SECONDS - (outage[1] - outage[0])) / 60.0
        return got / (self.quota() * minutes) if minutes > 0 else 1.0

    def reached(self, since: float, span: float) -> float:
        """Seconds until the last ``span`` seconds took 80 % of what the quota allows in them."""
        times = [at for at, _ in self.accepted]
        sums = [0.0]
        for _, tokens in self.accepted:
            sums.append(sums[-1] + (tokens if self.one.tpm else 1.0))
        needed = 0.8 * self.quota() * span / 60.0
        for index in range(bisect_left(times, since), len(times)):
            at = times[index]
            if sums[index + 1] - sums[bisect_right(times, max(since, at - span))] >= needed:
                return at - since
        return math.inf


def simulate(one: Scenario, seed: int) -> Figures:
    """One run."""
    return Simulation(one, seed).run()


def worst(one: Scenario, seeds: int) -> Figures:
    """The worst of each figure over the seeds."""
    runs = [simulate(one, seed) for seed in range(seeds)]

    def most(name: str) -> Any:
        values = [value for run in runs if (value := getattr(run, name)) is not None]
        return max(values) if values else None

    names = ("refused", "warm_up_seconds", "recovery_seconds", "over_ideal", "failed_items", "inside_gate")
    return replace(
        runs[0], goodput=min(run.goodput for run in runs), **{n: most(n) for n in (*names, "most_in_flight")}
    )


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    given = parser.parse_args()
    results = [(one, worst(one, given.seeds)) for one in SCENARIOS if given.only in one.name]
    if given.json:
        print(json.dumps([f.__dict__ | {"within": f.within(one)} for one, f in results], indent=1))
        return
    print(f"{'scenario':48} goodput  429s   warm-up recovery  span   failed in-gate in-flight")
    for one, f in results:
        goodput = f"{f.goodput:7.1%}" if one.items is None else "      -"
        recovery = f"{f.recovery_seconds:6.0f} s" if f.recovery_seconds is not None else "       -"
        span = f"{f.over_ideal:+6.1%}" if f.over_ideal is not None else "     -"
        print(
            f"{f.scenario:48} {goodput} {f.refused:6.2%} {f.warm_up_seconds:6.0f} s {recovery} {span}"
            f" {f.failed_items:6} {f.inside_gate:7} {f.most_in_flight:6}/{one.workers:<4}"
            f"{'ok' if f.within(one) else 'BELOW THE BAR'}"
        )


if __name__ == "__main__":
    main()
