"""Percentiles of the event loop's lag."""

import random

import pytest

from pipeline.report.loop_lag import LagMs, LoopLag


def lags(*seconds: float) -> LagMs:
    """The percentiles of probes every 50 ms that came so late."""
    lag = LoopLag(0.05)
    for each in seconds:
        lag.add(each)
    return lag.percentiles()


def test_nothing_seen() -> None:
    """No probe, no lag."""
    assert lags() == LagMs()


@pytest.mark.parametrize(
    ("seconds", "p50_ms", "p99_ms", "max_ms"),
    [
        ([0.0], 0.0, 0.0, 0.0),
        ([0.002] * 100, 2.0, 2.0, 2.0),
        ([0.001] * 99 + [0.040], 1.0, 1.0, 40.0),
        ([0.001] * 98 + [0.040] * 2, 1.0, 40.0, 40.0),
        ([0.00001] * 10, 0.0, 0.0, 0.0),
        ([600.0], 575_000.0, 600_000.0, 600_000.0),
    ],
)
def test_percentiles(seconds: list[float], p50_ms: float, p99_ms: float, max_ms: float) -> None:
    """To a tenth; the largest is exact."""
    seen = lags(*seconds)
    assert seen.p50 == pytest.approx(p50_ms, rel=0.1, abs=0.15)
    assert seen.p99 == pytest.approx(p99_ms, rel=0.1, abs=0.15)
    assert seen.max == pytest.approx(max_ms)


def test_near_the_true_ones() -> None:
    """Whatever the distribution."""
    chance = random.Random(7)
    seconds = sorted(min(0.049, chance.lognormvariate(-6, 1)) for _ in range(5000))
    seen = lags(*seconds)
    assert seen.p50 == pytest.approx(1000 * seconds[2500], rel=0.11)
    assert seen.p99 == pytest.approx(1000 * seconds[4950], rel=0.11)


def test_a_blocked_loop_counts_for_all_that_waited() -> None:
    """A stall of a second is twenty late probes, not one: a hundred good ones don't hide it."""
    assert lags(*[0.001] * 100, 1.0).p99 > 700
