"""Calls that share a service in trouble, in virtual time: outages, breakers, the retry budget."""

import random
from itertools import count

import anyio
import pytest

from pipeline.errors import Draining, ItemError, StopEarly, StopForHuman
from pipeline.events import Retrying
from pipeline.gemini.api import Call, Reply
from pipeline.gemini.wire import FaultKind
from tests.gemini.bench import Bench
from tests.gemini.doubles import OK, UNAVAILABLE, error, generate, lost, virtually


def test_outage_costs_no_attempts_and_is_probed_by_a_trickle() -> None:
    """Five minutes of nothing but 503 fail no item of 40, and few calls are spent on finding its end."""

    async def scenario() -> None:
        started = anyio.current_time()
        bench = Bench(lambda _call, _n: UNAVAILABLE if anyio.current_time() < started + 300 else OK)
        ends = await bench.all([f"k{n}" for n in range(40)])
        assert all(isinstance(end, Reply) for end in ends.values())
        during = [at for at, _ in bench.service.calls if at < started + 300]
        assert len(during) < 40 + 30
        assert anyio.current_time() - started < 300 + 180

    virtually(scenario())


def test_outage_of_connections_is_seen_with_one_worker() -> None:
    """A network that is away for ten minutes fails nobody, even one item at a time."""

    async def scenario() -> None:
        started = anyio.current_time()
        bench = Bench(lambda _c, _n: lost(FaultKind.CONNECT) if anyio.current_time() < started + 600 else OK)
        assert isinstance((await bench.all(["only"]))["only"], Reply)

    virtually(scenario())


def test_long_outage_ends_the_run_early() -> None:
    """After half an hour without any success the run ends with 3 and no item has failed."""

    async def scenario() -> None:
        bench = Bench(lambda _call, _n: UNAVAILABLE)
        started = anyio.current_time()
        ends = await bench.all([f"k{n}" for n in range(40)])
        assert {type(end) for end in ends.values()} == {StopEarly, Draining}
        assert 1800 <= anyio.current_time() - started < 2000

    virtually(scenario())


def test_poisoned_items_cannot_hold_up_the_end_of_a_run() -> None:
    """Twelve items that always fail beside healthy ones end as failures, though in the end nothing else runs."""

    async def scenario() -> None:
        async def slowly() -> Reply:
            await anyio.sleep(3)
            return OK

        poisoned = [f"bad{n}" for n in range(12)]
        bench = Bench(lambda call, _n: UNAVAILABLE if call.subject in poisoned else slowly(), concurrency=16)
        ends = await bench.all(poisoned + [f"good{n}" for n in range(60)])
        assert all(isinstance(ends[key], ItemError) for key in poisoned)
        assert sum(isinstance(end, Reply) for end in ends.values()) == 60

    virtually(scenario())


def test_same_400_on_ten_items_stops_the_run() -> None:
    """A 400 that meets item after item is not theirs."""

    async def scenario() -> None:
        bench = Bench(lambda _call, _n: error(400, "The document has no pages."), concurrency=1)
        ends = await bench.all([f"k{n}" for n in range(30)])
        assert len(bench.service.calls) == 10
        assert sum(isinstance(end, StopForHuman) for end in ends.values()) == 1
        assert bench.drain.exit_code == 5

    virtually(scenario())


def test_same_400_between_successes_is_the_items_own() -> None:
    """With successes between, twenty bad items fail one by one."""

    async def scenario() -> None:
        bench = Bench(lambda _c, n: OK if n % 5 == 4 else error(400, "The document has no pages."), concurrency=1)
        ends = await bench.all([f"k{n}" for n in range(25)])
        assert sum(isinstance(end, ItemError) for end in ends.values()) == 20
        assert not bench.drain.begun

    virtually(scenario())


def test_something_that_rewrites_replies_stops_the_run() -> None:
    """Ten items in a row answered with a login page end the run with 5."""

    async def scenario() -> None:
        page = Reply(status=200, headers={"content-type": "text/html"}, body=b"<html>log in</html>")
        bench = Bench(lambda _call, _n: page)
        ends = await bench.all([f"k{n}" for n in range(20)])
        stops = [end for end in ends.values() if isinstance(end, StopForHuman)]
        assert "rewrites" in str(stops[0])

    virtually(scenario())


@pytest.mark.parametrize(("workers", "share"), [(16, 0.5), (64, 0.5), (500, 0.5), (64, 0.9)])
def test_a_partial_outage_gets_few_calls_again(workers: int, share: float) -> None:
    """Half an hour in which a share of calls fails: at every moment retries are at most the budget, which is used.

    A tenth of the successes, and two a second or, where that is more, one a minute from each worker; ten at first, and
    the few that are let go together when what looked like an outage of everything is over.
    """
    per_second = max(2.0, workers / 60)

    async def scenario() -> None:
        chance, items = random.Random(1), count()
        retried: list[tuple[float, int]] = []
        successes = 0

        async def answer(call: Call) -> Reply:
            nonlocal successes
            if call.attempt > 1:
                retried.append((anyio.current_time(), successes))
            await anyio.sleep(0.5)
            if chance.random() < share:
                return UNAVAILABLE
            successes += 1
            return OK

        bench = Bench(lambda call, _n: answer(call), attempts=1_000, concurrency=workers)
        started = anyio.current_time()

        async def worker() -> None:
            while True:
                await bench.transport.send(generate(f"k{next(items)}"))

        with anyio.move_on_after(1800):
            async with anyio.create_task_group() as group:
                for _ in range(workers):
                    group.start_soon(worker)
        for sent, (at, answered) in enumerate(retried, 1):
            assert sent <= 10 + 0.1 * answered + per_second * (at - started) + 24
        if share == 0.5:
            assert len(retried) >= 0.8 * (0.1 * successes + per_second * 1800)

    virtually(scenario())


def test_the_noise_of_a_sound_service_waits_for_no_budget() -> None:
    """With 2 % of 503 no retry waits longer than its jitter of a second."""

    async def scenario() -> None:
        bench = Bench(lambda call, n: UNAVAILABLE if n % 50 == 49 and call.attempt == 1 else OK, rpm=6000)
        ends = await bench.all([f"k{n}" for n in range(3000)])
        assert all(isinstance(end, Reply) for end in ends.values())
        waits = [event.wait_seconds for event in bench.seen.of(Retrying)]
        assert len(waits) >= 50
        assert max(waits) <= 1.0

    virtually(scenario())


def test_an_outage_that_begins_while_calls_wait_holds_them_back() -> None:
    """Those that waited for a slot when it began are not sent into it, and all are answered when it is over."""

    async def scenario() -> None:
        began = anyio.current_time()

        async def slowly() -> Reply:
            await anyio.sleep(1)
            return OK if anyio.current_time() > began + 120 else UNAVAILABLE

        bench = Bench(lambda _call, _n: slowly(), concurrency=16)
        ends = await bench.all([f"k{n}" for n in range(60)])
        assert all(isinstance(end, Reply) for end in ends.values())
        assert len([at for at, _ in bench.service.calls if at <= began + 119]) < 60

    virtually(scenario())


@pytest.mark.parametrize("ending", ["the drain begins", "the day is used up"])
def test_calls_that_wait_when_the_run_ends_are_not_sent(ending: str) -> None:
    """They leave their line with the run's end, and leave nothing behind there."""

    async def scenario() -> None:
        async def slowly() -> Reply:
            await anyio.sleep(1)
            if ending == "the drain begins":
                bench.drain.begin(143, "SIGTERM")
            return OK

        bench = Bench(lambda _call, _n: slowly(), concurrency=2, **({"rpd": 5} if "day" in ending else {}))
        ends = await bench.all([f"k{n}" for n in range(9)])
        sent = 5 if "day" in ending else 2
        assert len(bench.service.calls) == sent
        assert sum(isinstance(end, Reply) for end in ends.values()) == sent
        assert {type(end) for end in ends.values()} <= {Reply, Draining, StopEarly}

    virtually(scenario())
