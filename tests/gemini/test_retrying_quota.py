"""Calls that share a quota, in virtual time: gates, days, caps and slots."""

from itertools import pairwise

import anyio
import pytest

from pipeline.errors import Draining, StopEarly
from pipeline.events import GateClosed, LimitLearnt
from pipeline.gemini.api import Reply
from tests.gemini.bench import Bench
from tests.gemini.doubles import OK, error, generate, quota, virtually


def test_a_refusal_for_quota_costs_no_attempt_and_holds_every_worker() -> None:
    """After a RetryInfo of 30 s nothing is sent for 30 s by anybody, and then all succeed."""

    async def scenario() -> None:
        async def after_a_second(answer: Reply) -> Reply:
            await anyio.sleep(1)
            return answer

        refusal = quota("GenerateRequestsPerMinute", delay="30s")
        bench = Bench(lambda _call, n: after_a_second(refusal if n < 8 else OK))
        ends = await bench.all([f"k{n}" for n in range(8)])
        assert all(isinstance(end, Reply) for end in ends.values())
        times = [at for at, _ in bench.service.calls]
        assert min(times[8:]) - max(times[:8]) >= 30.0
        assert max(times[8:]) - min(times[8:]) > 0
        assert bench.seen.of(GateClosed)
        assert [e.per_minute for e in bench.seen.of(LimitLearnt)] == [9]

    virtually(scenario())


def test_refusals_far_beyond_the_attempts_fail_no_item() -> None:
    """Twenty rounds of 429 without details only cost time."""

    async def scenario() -> None:
        bench = Bench(lambda _call, n: error(429, "Resource has been exhausted") if n < 20 else OK)
        assert (await bench.transport.send(generate())).attempts == 21

    virtually(scenario())


def test_refusals_for_half_an_hour_end_the_run_early() -> None:
    """Without one success for 30 minutes a run that is only refused ends with 3."""

    async def scenario() -> None:
        bench = Bench(lambda _call, _n: error(429, "Resource has been exhausted"))
        started = anyio.current_time()
        with pytest.raises(StopEarly):
            await bench.transport.send(generate())
        assert 1800 <= anyio.current_time() - started < 1900
        assert bench.drain.exit_code == 3

    virtually(scenario())


def test_daily_quota_stops_at_once_in_spite_of_a_short_delay() -> None:
    """After the first PerDay answer nothing more is sent."""

    async def scenario() -> None:
        bench = Bench(lambda _call, _n: quota("GenerateRequestsPerDay", delay="5s"), concurrency=1)
        ends = await bench.all([f"k{n}" for n in range(20)])
        assert len(bench.service.calls) == 1
        assert {type(end) for end in ends.values()} == {StopEarly, Draining}

    virtually(scenario())


@pytest.mark.parametrize("cured", [True, False])
def test_daily_and_minute_quota_together_get_exactly_one_probe(cured: bool) -> None:
    """One call tries again after RetryInfo: its success lets all go on, its refusal ends the run."""

    async def scenario() -> None:
        refusal = quota("GenerateRequestsPerDay", "GenerateRequestsPerMinute", delay="47s")

        async def after_a_second(answer: Reply) -> Reply:
            await anyio.sleep(1)
            return answer

        bench = Bench(lambda _call, n: after_a_second(refusal if n < 8 or not cured else OK))
        ends = await bench.all([f"k{n}" for n in range(8)])
        if cured:
            assert all(isinstance(end, Reply) for end in ends.values())
        else:
            assert len(bench.service.calls) == 9
            assert {type(end) for end in ends.values()} == {StopEarly, Draining}
        assert bench.service.calls[8][0] - bench.service.calls[7][0] >= 47

    virtually(scenario())


def test_concurrency_is_never_exceeded() -> None:
    """With a limit of 3, at no time are 4 calls out."""

    async def scenario() -> None:
        out = most = 0

        async def slow() -> Reply:
            nonlocal out, most
            out += 1
            most = max(most, out)
            await anyio.sleep(1)
            out -= 1
            return OK

        bench = Bench(lambda _call, _n: slow(), concurrency=3)
        await bench.all([f"k{n}" for n in range(12)])
        assert most == 3

    virtually(scenario())


def test_caps_pace_the_calls() -> None:
    """At 60 a minute ten calls take nine seconds; at 600 tokens a minute calls of 100 come every ten seconds."""

    async def scenario(gap: float, **caps: float) -> None:
        bench = Bench(lambda _call, _n: OK, **caps)
        await bench.all([f"k{n}" for n in range(10)], lambda key: generate(key, tokens=100))
        times = [at for at, _ in bench.service.calls]
        assert [round(b - a, 6) for a, b in pairwise(times)] == [gap] * 9

    virtually(scenario(1.0, rpm=60))
    virtually(scenario(10.0, tpm=600, rpm=60))


def test_used_up_day_cap_ends_the_run_early() -> None:
    """With rpd = 3 the fourth call is not sent, and the run ends with 3."""

    async def scenario() -> None:
        bench = Bench(lambda _call, _n: OK, concurrency=1, rpd=3)
        ends = await bench.all([f"k{n}" for n in range(6)])
        assert len(bench.service.calls) == 3
        assert any(isinstance(end, StopEarly) for end in ends.values())

    virtually(scenario())


def test_a_day_quota_beside_one_of_minutes_is_known_when_its_delay_is_over() -> None:
    """The probe goes when RetryInfo says so, whatever a pace for the minute would be, and ends the run."""

    async def scenario() -> None:
        both = quota("GenerateRequestsPerDayPerProject", "GenerateRequestsPerMinutePerProject", delay="3s")
        began = anyio.current_time()

        async def answer(before: int) -> Reply:
            await anyio.sleep(0.1)
            return OK if before < 20 else both

        bench = Bench(lambda _call, before: answer(before), concurrency=4)
        ends = await bench.all([f"{n}" for n in range(60)])
        assert sum(isinstance(end, StopEarly) for end in ends.values()) >= 1
        assert len(bench.service.calls) <= 20 + 4 + 1
        assert anyio.current_time() - began < 6

    virtually(scenario())


def test_a_cancelled_day_probe_lets_another_go() -> None:
    """The item that probes a daily quota may be given up by its room; the run must not wait for it for ever."""

    async def scenario() -> None:
        async def answer(n: int) -> Reply:
            if n == 1:
                await anyio.sleep_forever()
            return quota("GenerateRequestsPerDay", "GenerateRequestsPerMinute", delay="10s") if n == 0 else OK

        bench = Bench(lambda _call, n: answer(n))
        with anyio.move_on_after(20):
            await bench.transport.send(generate("given up"))
        with anyio.fail_after(120):
            assert isinstance(await bench.transport.send(generate("next")), Reply)

    virtually(scenario())
