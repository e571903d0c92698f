"""What the governor says of the calls that wait, and of the ones that are refused."""

import anyio
import pytest

from pipeline.clock import ManualClock
from pipeline.drain import Drain
from pipeline.events import LimitLearnt, Refused
from pipeline.gemini.api import Route
from pipeline.gemini.classify import classify
from pipeline.gemini.governor.adaptive import AdaptiveGovernor
from pipeline.gemini.governor.lane import FIRST_CALLS, Lane, Told, quotas_of
from pipeline.gemini.governor.limit import Limit
from pipeline.gemini.governor.memory import QuotaMemory
from pipeline.gemini.governor.slots import FIRST_SLOTS, Slots
from pipeline.moment import Hold, Pressure
from pipeline.spec import QuotaSpec
from tests.gemini.doubles import OK, IntentBook, Recorder, generate, permit, quota, virtually
from tests.support.builders import NOW


def lane(requests: Limit | None, tokens: Limit | None = None) -> Lane:
    """A lane that has been answered."""
    one = Lane(requests, tokens, jitter=lambda: 0.0)
    one.start(100, 0.0)
    one.succeeded(sent_at=0.0, now=0.0)
    return one


@pytest.mark.parametrize(
    ("one", "held_by"),
    [
        (lane(None), None),
        (lane(Limit()), None),
        (lane(Limit(known=60)), Hold.REQUESTS),
        (lane(Limit(cap=60)), Hold.RPM),
        (lane(Limit(cap=60, known=1000)), Hold.RPM),
        (lane(Limit(cap=1000, known=60)), Hold.REQUESTS),
        (lane(Limit(known=6000), Limit(known=600)), Hold.TOKENS),
        (lane(Limit(known=6000), Limit(cap=600)), Hold.TPM),
    ],
)
def test_a_pace(one: Lane, held_by: Hold | None) -> None:
    """The limit with the longest wait holds, and the user's cap where that is what paces."""
    assert one.held_by(0.001) is held_by


@pytest.mark.parametrize(
    ("told", "requests", "held_by"),
    [
        (Told(delay_seconds=30.0), Limit(), Hold.REQUESTS),
        (Told(delay_seconds=30.0, by_requests=False, by_tokens=True), Limit(), Hold.TOKENS),
        (Told(delay_seconds=30.0), None, Hold.REFUSALS),
    ],
)
def test_a_closed_gate(told: Told, requests: Limit | None, held_by: Hold) -> None:
    """The quota that closed it holds; a family without quotas only knows that it was refused."""
    one = lane(requests)
    one.refused(told, charged=100.0, sent_at=0.0, now=0.1)
    assert one.held_by(1.0) is held_by
    assert one.held_by(40.0) is None


def test_the_first_calls() -> None:
    """Before the first answer calls go out with care."""
    one = Lane(Limit(), Limit(), jitter=lambda: 0.0)
    for _ in range(FIRST_CALLS):
        assert one.held_by(0.0) is None
        one.start(1, 0.0)
    assert one.held_by(0.0) is Hold.SLOW_START


def test_slots() -> None:
    """Few at first, few again after overload, at last as many as the user allows."""
    slots = Slots(FIRST_SLOTS + 8)
    assert slots.held_by() is Hold.SLOW_START
    slots.in_flight = FIRST_SLOTS
    slots.cut(sent_at=0.0, now=1.0)
    assert slots.held_by() is Hold.OVERLOAD
    assert Slots(4).held_by() is Hold.CONCURRENCY


@pytest.mark.parametrize(
    ("ids", "named"),
    [
        (["GenerateRequestsPerMinutePerProjectPerModel-FreeTier"], ("requests_per_minute",)),
        (["GenerateContentPaidTierInputTokensPerModelPerMinute"], ("tokens_per_minute",)),
        (["GenerateRequestsPerDayPerProjectPerModel"], ("requests_per_day",)),
        (["GenerateRequestsPerMinute", "InputTokensPerModelPerMinute"], ("requests_per_minute", "tokens_per_minute")),
        (["FileStorageBytesPerProject"], ("storage_bytes",)),
        ([], ("unnamed",)),
    ],
)
def test_quotas_of_a_refusal(ids: list[str], named: tuple[str, ...]) -> None:
    """In plain words, each once."""
    assert quotas_of(classify(Route.GENERATE, quota(*ids)).signal) == named


def governor(seen: Recorder) -> AdaptiveGovernor:
    """A governor of four calls at once that remembers."""
    clock = ManualClock(NOW)
    memory = QuotaMemory(IntentBook(), "key", clock)  # type: ignore[arg-type]
    return AdaptiveGovernor(
        concurrency=4, quota=QuotaSpec(), drain=Drain(), observer=seen, clock=clock, memory=memory, jitter=lambda: 0.0
    )


def test_what_waits_and_for_what() -> None:
    """Four calls are out, two wait; after a refusal they wait for the quota."""

    async def scenario() -> None:
        seen = Recorder()
        one = governor(seen)
        assert one.pressure() == Pressure(slots=4)
        answer = anyio.Event()

        async def ask() -> None:
            async with permit(one, generate()):
                await answer.wait()

        async with anyio.create_task_group() as calls:
            for _ in range(6):
                calls.start_soon(ask)
            await anyio.sleep(1)
            assert one.pressure() == Pressure(in_flight=4, waiting=2, held_by=Hold.CONCURRENCY, slots=4)
            answer.set()
        assert one.pressure() == Pressure(slots=4)
        async with permit(one, generate()):
            refusal = quota("GenerateRequestsPerMinute", delay="30s")
            one.observe(generate(), classify(Route.GENERATE, refusal), sent_at=1001.0, now=1001.1)
        async with anyio.create_task_group() as calls:
            calls.start_soon(ask)
            await anyio.sleep(1)
            assert one.pressure() == Pressure(waiting=1, held_by=Hold.REQUESTS, slots=4)
        assert [event.quotas for event in seen.of(Refused)] == [("requests_per_minute",)]

    virtually(scenario())


def test_at_the_end_the_last_limit_is_told() -> None:
    """On the way only changes of some size are worth a line."""

    async def scenario() -> None:
        seen = Recorder()
        one = governor(seen)
        async with permit(one, generate()):
            one.observe(generate(), classify(Route.GENERATE, OK), sent_at=1000.0, now=1000.1)
            limit = one._lines[""].lane.requests
            assert limit is not None
            for ceiling in (100.0, 104.0, 106.0):
                limit.ceiling = ceiling
                await one.keep()
            limit.ceiling = 108.4
            await one.keep(at_end=True)
        assert [event.per_minute for event in seen.of(LimitLearnt)] == [100, 106, 108]
        assert not any(event.is_told for event in seen.of(LimitLearnt))

    virtually(scenario())
