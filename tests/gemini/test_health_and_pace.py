"""The pure states: health, breakers, rates and the gate, in times that are numbers."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.gemini.governor.pace import LATENESS_SECONDS, DayCount, Gate, Rate, pacific_day
from pipeline.gemini.health import Breaker, Health, Patience


def broken(subjects: int = 10) -> Health:
    """A health that has seen ``subjects`` distinct items fail at time 0."""
    health = Health(Patience())
    for number in range(subjects):
        health.failed(f"item {number}", 0.0, never_connected=False)
    return health


def test_ten_distinct_items_are_an_outage_and_nine_are_not() -> None:
    """The count is of items, not of failures."""
    health = broken(9)
    health.failed("item 0", 0.0, never_connected=False)
    assert not health.in_outage
    health.failed("item 9", 0.0, never_connected=False)
    assert health.in_outage


def test_five_connect_faults_in_a_row_are_an_outage_even_of_one_item() -> None:
    """What never connects says nothing of the item."""
    health = Health(Patience())
    for _ in range(4):
        health.failed("a", 0.0, never_connected=True)
    health.answered()
    health.failed("a", 0.0, never_connected=True)
    assert not health.in_outage
    for _ in range(4):
        health.failed("a", 0.0, never_connected=True)
    assert health.in_outage


def test_outage_lets_one_probe_through_at_a_time_and_slows_down() -> None:
    """Probes come after 1, 2, 4 seconds and so on; all others wait for the next."""
    health = broken()
    assert health.admit("a", 0.0) == 0.0
    assert health.admit("b", 0.0) == 1.0
    health.failed("a", 0.5, never_connected=False)
    assert health.admit("b", 1.0) == 0.0
    health.failed("b", 1.0, never_connected=False)
    assert health.admit("c", 1.0) == 2.0


def test_prober_passes_freely_until_it_fails() -> None:
    """An upload must start and send a chunk before it has proved anything."""
    health = broken()
    assert health.admit("a", 0.0) == health.admit("a", 0.1) == 0.0
    health.failed("a", 0.2, never_connected=False)
    assert health.admit("a", 0.3) > 0


def test_success_ends_the_outage_and_opens() -> None:
    """One success is enough."""
    health = broken()
    assert health.succeeded(sent_at=1.0)
    assert health.admit("a", 1.0) == health.admit("b", 1.0) == 0.0
    assert not health.succeeded(sent_at=2.0)


def test_outage_is_hopeless_after_half_an_hour_from_its_first_failure() -> None:
    """A run does not wait for ever, and a success sets the time back."""
    health = broken()
    assert not health.hopeless(1799.0)
    assert health.hopeless(1800.0)
    health.succeeded(sent_at=1800.0)
    assert not health.hopeless(9999.0)


def test_refusals_without_any_success_are_hopeless_after_half_an_hour() -> None:
    """A 429 for ever is an outage of another kind."""
    health = Health(Patience())
    health.refused(5.0)
    health.refused(1000.0)
    assert not health.hopeless(1804.0)
    assert health.hopeless(1805.0)


def test_day_quota_is_probed_by_exactly_one_call() -> None:
    """After RetryInfo one call goes, the rest wait for its fate; its refusal confirms, others' don't."""
    health = Health(Patience())
    assert not health.day_refused(sent_at=0.0, now=1.0, delay_seconds=47.0)
    assert not health.day_refused(sent_at=0.5, now=2.0, delay_seconds=47.0)
    assert health.admit("a", 47.9) > 0
    assert health.admit("a", 48.0) == 0.0
    assert health.admit("b", 1000.0) == 60.0
    assert health.day_refused(sent_at=48.0, now=49.0, delay_seconds=47.0)


def test_day_probe_that_is_lost_lets_another_go() -> None:
    """A probe that ends in a fault, or is cancelled, must not hold the run for ever."""
    health = Health(Patience())
    health.day_refused(sent_at=0.0, now=0.0, delay_seconds=1.0)
    assert health.admit("a", 1.0) == 0.0
    health.gave_up("a", 2.0)
    assert health.admit("b", 200.0) == 0.0
    assert health.succeeded(sent_at=200.0)
    assert health.admit("c", 200.0) == 0.0


def test_success_sent_before_the_day_refusal_proves_nothing() -> None:
    """An answer that was on its way already says nothing of the quota now."""
    health = Health(Patience())
    health.day_refused(sent_at=0.0, now=5.0, delay_seconds=1.0)
    assert not health.succeeded(sent_at=4.0)
    assert health.admit("a", 5.5) > 0


def test_an_old_success_leaves_the_day_probe_its_place() -> None:
    """The probe is still out; when it is lost another goes, for nothing else would ever end the suspicion."""
    health = Health(Patience())
    health.day_refused(sent_at=0.0, now=1.0, delay_seconds=5.0)
    assert health.admit("probe", 6.0) == 0.0
    assert not health.succeeded(sent_at=0.5)
    health.gave_up("probe", 8.0)
    assert health.admit("next", 60.0) == 0.0


def test_a_refuted_day_quota_leaves_a_later_outage_its_probes() -> None:
    """What held calls back then must not hold the probes of an outage for ever."""
    health = Health(Patience())
    health.day_refused(sent_at=0.0, now=1.0, delay_seconds=5.0)
    assert health.admit("probe", 6.0) == 0.0
    assert health.succeeded(sent_at=6.0)
    for number in range(10):
        health.failed(f"item {number}", 100.0, never_connected=False)
    assert health.admit("a", 101.0) == 0.0


def test_a_day_probe_that_never_ends_holds_the_others_for_half_an_hour_at_most() -> None:
    """An upload may be given up between its calls, which nobody hears of."""
    health = Health(Patience())
    health.day_refused(sent_at=0.0, now=0.0, delay_seconds=1.0)
    assert health.admit("lost", 1.0) == 0.0
    assert health.admit("b", 1800.0) > 0
    assert health.admit("b", 1801.0) == 0.0


def test_absurd_delays_count_by_rounds_not_by_workers() -> None:
    """Sixty-four refusals of calls sent together are one; the fifth round is a daily quota."""
    health = Health(Patience())
    assert not any(health.refused_absurdly(sent_at=0.0, now=1.0) for _ in range(64))
    assert [health.refused_absurdly(sent_at=10.0 * n, now=10.0 * n + 1) for n in range(1, 5)] == [False] * 3 + [True]


def test_breaker_counts_distinct_items_by_cause() -> None:
    """Ten items with one message trip; ten messages, or one item ten times, do not."""
    breaker = Breaker(10)
    assert not any(breaker.trips("m", "same") for _ in range(20))
    assert not any(breaker.trips(f"m{n}", f"i{n}") for n in range(20))
    assert [breaker.trips("x", f"i{n}") for n in range(10)] == [False] * 9 + [True]
    breaker.reset()
    assert not breaker.trips("x", "i0")


@given(st.integers(min_value=0, max_value=10_000))
def test_backoff_is_never_more_than_a_minute(failures: int) -> None:
    """Doubling stops at the cap, whatever the count."""
    assert 1.0 <= Patience().backoff_cap(failures) <= 60.0


@given(st.lists(st.floats(min_value=0, max_value=5), max_size=200), st.integers(min_value=1, max_value=600))
def test_rate_holds_over_every_minute(gaps: list[float], per_minute: int) -> None:
    """However callers come, no window of a minute holds more starts than the rate, but for the one at its edge and
    what a late one may make up for."""
    rate, now, starts = Rate(per_minute), 0.0, []
    for gap in gaps:
        now += gap
        now += rate.wait(now)
        rate.take(1, now)
        starts.append(now)
    for start in starts:
        assert sum(start <= other < start + 59.999 for other in starts) <= per_minute * (60 + LATENESS_SECONDS) / 60 + 1


def test_token_rate_charges_what_a_call_holds() -> None:
    """A call of half a minute's tokens is followed by half a minute's wait."""
    rate = Rate(1000)
    rate.take(500, 0.0)
    assert rate.wait(0.0) == pytest.approx(30.0)
    assert rate.wait(31.0) == 0.0


def test_gate_closes_for_the_longest_delay_told() -> None:
    """A later, shorter delay does not open what a longer one has closed."""
    gate = Gate()
    assert gate.refuse(30.0, sent_at=0.0, now=1.0) == 30.0
    assert gate.refuse(5.0, sent_at=0.5, now=2.0) == 29.0
    assert gate.wait(30.9) > 0
    assert gate.wait(31.0) == 0.0


def test_gate_spreads_the_first_calls_after_it() -> None:
    """The herd that waited does not come at once: the spread is in proportion to the delay."""
    gate = Gate()
    gate.refuse(64.0, sent_at=0.0, now=0.0)
    gate.take(64.0)
    assert gate.wait(64.0) == pytest.approx(0.1)
    assert gate.wait(64.0 + 6.5) == 0.0


def test_gate_without_a_delay_grows_by_rounds() -> None:
    """Refusals of calls that left together double nothing; each new round doubles, up to a minute."""
    gate = Gate()
    assert gate.refuse(None, sent_at=0.0, now=1.0) == 2.0
    assert gate.refuse(None, sent_at=0.5, now=1.0) == 2.0
    waits = [gate.refuse(None, sent_at=100.0 * n, now=100.0 * n) for n in range(1, 7)]
    assert waits == [4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_gate_believes_no_delay_that_was_waited_for_in_vain() -> None:
    """ "0s" again and again would be a storm; one call let in, and the service is believed once more."""
    gate = Gate()
    waits = [gate.refuse(0.0, sent_at=10.0 * n, now=10.0 * n + 1) for n in range(1, 12)]
    assert waits == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    gate.accept(sent_at=300.0)
    assert gate.refuse(0.5, sent_at=400.0, now=400.0) == 0.5


@pytest.mark.parametrize(("sent_at", "seconds"), [(600.0, 2.0), (499.0, 4.0)])
def test_gate_is_short_again_after_a_call_that_it_let_through(sent_at: float, seconds: float) -> None:
    """Answers to calls that had left before it closed say nothing."""
    gate = Gate()
    gate.refuse(None, sent_at=500.0, now=500.0)
    gate.accept(sent_at=sent_at)
    assert gate.refuse(None, sent_at=900.0, now=900.0) == seconds


def test_day_count_starts_anew_at_midnight_pacific() -> None:
    """07:59 and 08:01 UTC in winter are different quota days, and summer is an hour earlier."""
    count = DayCount(1)
    assert count.take(datetime(2026, 11, 23, 7, 59, tzinfo=UTC))
    assert not count.take(datetime(2026, 11, 23, 7, 59, tzinfo=UTC))
    assert count.take(datetime(2026, 11, 23, 8, 1, tzinfo=UTC))
    assert pacific_day(datetime(2026, 7, 1, 7, 1, tzinfo=UTC)).day == 1
