"""The parts of the governor: limits, slots, retry budget, token ratios, memory, and the lines of waiting calls."""

from datetime import UTC, datetime, timedelta

import anyio
import msgspec
import pytest

from pipeline.clock import Clock, ManualClock, SystemClock
from pipeline.drain import Drain
from pipeline.errors import Draining, StopEarly
from pipeline.events import GateClosed, LimitLearnt
from pipeline.gemini.api import Call, Reply
from pipeline.gemini.classify import classify
from pipeline.gemini.governor.adaptive import AdaptiveGovernor
from pipeline.gemini.governor.lane import TokenRatios, read_refusal
from pipeline.gemini.governor.limit import Limit
from pipeline.gemini.governor.memory import Ceilings, QuotaMemory
from pipeline.gemini.governor.recent import Recent
from pipeline.gemini.governor.slots import RetryBudget, Slots
from pipeline.ledger.memory import MemoryLedger
from pipeline.spec import QuotaSpec
from tests.gemini.doubles import Recorder, generate, permit, quota, virtually

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


def governor(
    *,
    concurrency: int = 64,
    drain: Drain | None = None,
    seen: Recorder | None = None,
    memory: QuotaMemory | None = None,
    clock: Clock | None = None,
    **caps: float,
) -> AdaptiveGovernor:
    """A governor of generate calls."""
    return AdaptiveGovernor(
        concurrency=concurrency,
        quota=QuotaSpec(**caps),
        drain=drain or Drain(),
        observer=seen or Recorder(),
        clock=clock or SystemClock(),
        memory=memory,
    )


def sent(limit: Limit, calls: int, *, since: float, over_seconds: float) -> float:
    """Let ``calls`` go evenly; the time after the last."""
    for number in range(calls):
        limit.take(1.0, since + over_seconds * number / calls)
    return since + over_seconds


def test_what_the_service_tells_is_the_ceiling() -> None:
    """A quotaValue of 150 paces just under 150, a share of half under 75, and a cap of 60 stays 60."""
    for given, pace in ((Limit(), 147.0), (Limit(share=0.5), 73.5), (Limit(cap=60), 60.0)):
        now = sent(given, 100, since=0.0, over_seconds=20.0)
        given.refused(150.0, delay_seconds=40.0, sent_at=now - 0.1, now=now)
        assert (given.ceiling, given.per_minute) == (150.0, pytest.approx(pace))


def test_without_a_value_the_minute_tells() -> None:
    """Two hundred calls in the minute before the first refusal are the ceiling; the refused one is not among them."""
    limit = Limit()
    now = sent(limit, 201, since=0.0, over_seconds=59.0)
    limit.uncount(1.0, sent_at=now - 0.3, now=now)
    limit.refused(None, delay_seconds=20.0, sent_at=now - 0.3, now=now)
    assert limit.ceiling == pytest.approx(200.0)


def silently_refused() -> Limit:
    """A limit whose first refusal, after 300 calls in three seconds, said nothing."""
    limit = Limit()
    now = sent(limit, 301, since=0.0, over_seconds=3.0)
    limit.uncount(1.0, sent_at=now - 0.1, now=now)
    limit.refused(None, delay_seconds=None, sent_at=now - 0.1, now=now)
    return limit


def test_a_call_that_a_full_minute_lets_in_shows_a_bucket() -> None:
    """After the gate one call goes a second; the first answer paces at 0.6 of the flow, and nothing is held now."""
    limit = silently_refused()
    assert (limit.ceiling, limit.per_minute) == (300.0, pytest.approx(294.0))
    assert limit.wait(5.0) == 0.0
    limit.take(1.0, 5.0)
    assert limit.wait(5.5) > 0.0
    limit.accepted(sent_at=2.9, now=5.6)
    assert limit.per_minute == pytest.approx(294.0)
    limit.accepted(sent_at=5.0, now=5.7)
    assert limit.per_minute == pytest.approx(0.6 * 6000, rel=0.02)
    assert limit.wait(5.8) == 0.0


def test_a_call_that_a_full_minute_refuses_shows_a_window() -> None:
    """Two calls are tried; then nothing starts until what was sent is a minute old."""
    limit = silently_refused()
    for number, now in enumerate((5.0, 10.0)):
        assert limit.wait(now) == 0.0, number
        limit.take(1.0, now)
        limit.uncount(1.0, sent_at=now, now=now + 0.1)
        limit.refused(None, delay_seconds=None, sent_at=now, now=now + 0.1)
    assert limit.ceiling == 300.0
    assert limit.wait(20.0) > 0.0
    assert limit.wait(61.5) == 0.0


def test_what_the_service_tells_later_ends_the_trial() -> None:
    """A quotaValue is worth more than what a call may show."""
    limit = silently_refused()
    limit.take(1.0, 5.0)
    limit.refused(240.0, delay_seconds=None, sent_at=4.9, now=5.2)
    limit.accepted(sent_at=5.0, now=5.7)
    assert limit.ceiling == 240.0


@pytest.mark.parametrize(("delay_seconds", "tried"), [(None, True), (0.3, False), (40.0, False)])
def test_only_a_refusal_that_says_nothing_is_put_to_the_trial(delay_seconds: float | None, tried: bool) -> None:
    """A short ``RetryInfo`` tells a bucket, which holds nothing; a long one a window, which holds without a trial."""
    limit = Limit()
    now = sent(limit, 300, since=0.0, over_seconds=3.0)
    limit.refused(None, delay_seconds=delay_seconds, sent_at=now, now=now)
    bucket = (limit.ceiling or 0) > 1000
    assert (limit.wait(5.0) == 0.0) == (tried or bucket)
    assert bucket == (delay_seconds == 0.3)


@pytest.mark.parametrize(("seconds", "share"), [(0.1, 0.98), (1.5, 0.85)])
def test_a_supposed_bucket_that_refuses_at_once_after_the_gate_is_a_window(seconds: float, share: float) -> None:
    """A refusal of the first call after the gate falls back on a minute's margin; after a later one it still flows."""
    limit = silently_refused()
    limit.take(1.0, 5.0)
    limit.accepted(sent_at=5.0, now=5.7)
    now = sent(limit, 150, since=6.0, over_seconds=2.0)
    limit.refused(None, delay_seconds=None, sent_at=now, now=now)
    limit.take(1.0, now + 2.0)
    limit.refused(None, delay_seconds=None, sent_at=now + 2.0 + seconds, now=now + 2.2 + seconds)
    assert limit.per_minute == pytest.approx(share * (limit.ceiling or 0.0))


def test_nothing_is_inferred_from_an_empty_minute() -> None:
    """Where nothing of ours was counted a refusal tells nothing of our part; a pace of zero would never recover."""
    limit = Limit()
    limit.take(1.0, 0.0)
    limit.uncount(1.0, sent_at=0.0, now=0.1)
    limit.refused(None, delay_seconds=None, sent_at=0.0, now=0.1)
    assert limit.ceiling is None
    assert limit.wait(0.2) == 0.0


def test_calls_that_were_out_together_cut_once() -> None:
    """Sixty-four refusals of one burst lower the ceiling as one does."""
    limit = Limit(known=100)
    now = sent(limit, 90, since=0.0, over_seconds=60.0)
    limit.refused(None, delay_seconds=1.0, sent_at=now, now=now)
    once = limit.per_minute
    for _ in range(63):
        limit.refused(None, delay_seconds=1.0, sent_at=now, now=now + 0.2)
    assert limit.per_minute == once


def test_what_came_through_in_a_first_minute_is_not_taken_for_a_whole_one() -> None:
    """Told 600, of which others take 200: after 67 calls in ten seconds the next refusal steps down to about 400."""
    limit = Limit()
    now = sent(limit, 50, since=0.0, over_seconds=1.0)
    limit.refused(600.0, delay_seconds=0.1, sent_at=now, now=now)
    now = sent(limit, 83, since=1.5, over_seconds=10.0)
    limit.refused(600.0, delay_seconds=0.1, sent_at=now, now=now)
    assert limit.ceiling == pytest.approx(480.0, rel=0.05)


def test_a_ceiling_of_last_night_is_the_start_and_no_prison() -> None:
    """It starts at 0.9 of 100, and where nothing refuses it has doubled within a minute."""
    limit = Limit(known=100)
    assert limit.per_minute == pytest.approx(90.0)
    now = 0.0
    while now < 60.0:
        limit.take(1.0, now)
        limit.accepted(sent_at=now, now=now)
        now += max(0.01, limit.wait(now))
    assert (limit.per_minute or 0) > 200


def test_an_idle_pace_is_not_raised() -> None:
    """What was not used has proved nothing."""
    limit = Limit(known=6000)
    sent(limit, 20, since=0.0, over_seconds=60.0)
    assert limit.per_minute == pytest.approx(5400.0)


def test_recent_counts_a_minute_and_forgets() -> None:
    """What is older than the minute counts no more, and taking back what is forgotten changes nothing."""
    recent = Recent()
    recent.add(10, at=1000.0, now=1000.0)
    recent.add(5, at=1030.0, now=1030.0)
    assert recent.total(1059.0) == 15
    assert recent.total(1061.0) == 5
    recent.add(-10, at=1000.0, now=1061.0)
    assert recent.total(1061.0) == 5
    assert recent.total(99999.0) == 0


def test_slots_open_with_answers_and_close_on_overload() -> None:
    """From 24 up to the limit by answers; failures lower it, once for calls that were out together."""
    slots = Slots(64)
    assert slots.limit == 24
    for _ in range(300):
        slots.succeeded()
    assert slots.limit == 64
    slots.in_flight = 60
    for _ in range(20):
        slots.failed(sent_at=1.0, now=2.0)
    assert slots.limit == 36
    slots.in_flight = 1
    for number in range(50):
        slots.failed(sent_at=3.0 + number, now=4.0 + number)
    assert slots.limit == 36
    for _ in range(400):
        slots.succeeded()
    assert slots.limit == 64


def test_retry_budget_grows_with_successes_and_never_ends_for_good() -> None:
    """Ten retries are free, a hundred successes buy ten more, and whoever comes then waits a while."""
    budget = RetryBudget()
    assert [budget.take(0.0) for _ in range(10)] == [0.0] * 10
    assert 0 < budget.take(0.0) <= 60.0
    for _ in range(120):
        budget.succeeded()
    assert budget.take(0.0) == 0.0


def test_a_long_partial_outage_is_not_owed_for_afterwards() -> None:
    """A thousand workers fail for an hour: none waits longer than a minute, and two minutes later none waits at all."""
    budget = RetryBudget()
    waits = [budget.take(second) for second in range(3600) for _ in range(20)]
    assert max(waits) == 60.0
    assert budget.take(3600.0 + 120.0) == 0.0


def test_token_ratios_are_learnt_by_kind() -> None:
    """A picture's estimate and a clip's are each corrected by their own answers."""
    ratios = TokenRatios()
    for _ in range(30):
        ratios.learn(1120, 280)
        ratios.learn(30_000, 60_000)
    assert ratios.expect(1100) == pytest.approx(275, rel=0.01)
    assert ratios.expect(30_000) == pytest.approx(60_000, rel=0.01)


def test_refusals_are_read_by_dimension() -> None:
    """Tokens and requests are told apart, days are left out, and nonsense is no value."""
    tokens = read_refusal(classify(generate().route, quota("GenerateContentInputTokensPerModelPerMinute", delay="5s")))
    assert (tokens.by_tokens, tokens.by_requests, tokens.tokens, tokens.delay_seconds) == (True, False, 9.0, 5.0)
    both = read_refusal(classify(generate().route, quota("GenerateRequestsPerDay", "GenerateRequestsPerMinute")))
    assert (both.by_requests, both.requests, both.delay_seconds) == (True, 9.0, None)
    bare = read_refusal(classify(generate().route, quota()))
    assert (bare.by_requests, bare.by_tokens, bare.requests) == (True, False, None)


async def once(one: AdaptiveGovernor, call: Call, reply: Reply | None = None) -> None:
    """One call that ends with ``reply`` at once."""
    async with permit(one, call):
        if reply is not None:
            now = anyio.current_time()
            one.observe(call, classify(call.route, reply), sent_at=now - 0.1, now=now)


def test_calls_start_in_the_order_in_which_they_asked() -> None:
    """First come, first served, at the pace of the cap."""

    async def scenario() -> None:
        one, order = governor(rpm=60), []

        async def ask(number: int) -> None:
            async with permit(one, generate(str(number))):
                order.append((number, anyio.current_time()))

        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(ask, number)
        assert [number for number, _ in order] == [0, 1, 2, 3, 4]
        assert order[4][1] - order[0][1] == pytest.approx(4.0)

    virtually(scenario())


def test_a_refused_model_does_not_hold_another() -> None:
    """Each model has its own gate; the slots are shared."""

    async def scenario() -> None:
        one = governor()
        await once(one, generate(), quota("GenerateRequestsPerMinute", delay="30s"))
        began = anyio.current_time()
        await once(one, msgspec.structs.replace(generate(), model="other"))
        assert anyio.current_time() == began
        await once(one, generate())
        assert anyio.current_time() - began >= 30.0

    virtually(scenario())


def test_giving_up_while_waiting_loses_no_slot() -> None:
    """Cancelled and drained waiters leave the line; those behind them move up."""

    async def scenario() -> None:
        drain = Drain()
        one = governor(concurrency=1, drain=drain)
        async with permit(one, generate()):
            with anyio.move_on_after(1):
                await once(one, generate())
        with anyio.fail_after(1):
            await once(one, generate())
        async with permit(one, generate()), anyio.create_task_group() as group:

            async def waits() -> None:
                with pytest.raises(Draining):
                    await once(one, generate())

            group.start_soon(waits)
            await anyio.sleep(1)
            drain.begin(143, "SIGTERM")

    virtually(scenario())


def test_what_is_learnt_is_told_once_and_remembered_for_a_day() -> None:
    """The next run starts at 0.9 of the ceiling; after 24 hours it is forgotten."""

    async def scenario() -> None:
        clock, seen = ManualClock(NOW), Recorder()
        memory = QuotaMemory(MemoryLedger(), "key", clock)
        first = governor(memory=memory, clock=clock, seen=seen)
        await once(first, generate(), quota("GenerateRequestsPerMinute", delay="2s"))
        assert [event.per_minute for event in seen.of(LimitLearnt)] == [9]
        assert len(seen.of(GateClosed)) == 1
        await first.keep()
        assert await memory.ceilings("") == Ceilings(requests=9.0)
        clock.advance(timedelta(hours=25).total_seconds())
        assert await memory.ceilings("") == Ceilings()

    virtually(scenario())


def test_a_run_started_again_counts_on_with_the_day() -> None:
    """Two of three requests of the day are used by the first run; the second may send one."""

    async def scenario() -> None:
        clock = ManualClock(NOW)
        memory = QuotaMemory(MemoryLedger(), "key", clock)
        first = governor(memory=memory, clock=clock, rpd=3)
        await once(first, generate())
        await once(first, generate())
        await first.keep()
        second = governor(memory=memory, clock=clock, rpd=3)
        await once(second, generate())
        with pytest.raises(StopEarly):
            await once(second, generate())
        clock.advance(86_400)
        await once(second, generate())

    virtually(scenario())
