"""Calls through the retrying transport whose cost must not fall on the wrong item, limit or quota, in virtual time."""

import json
from collections import Counter

import anyio
import pytest

from pipeline.errors import ItemError, StopForHuman, StorageFull, TryAgain
from pipeline.gemini.api import Call, Reply, Route
from tests.gemini.bench import Bench
from tests.gemini.doubles import OK, UNAVAILABLE, error, generate, quota, virtually

FULL = error(429, "Quota exceeded for metric: file_storage_bytes")


def test_tries_of_an_outage_are_not_held_against_an_item() -> None:
    """A 504 may come three times; the many that an outage was made of don't count towards it."""

    async def scenario() -> None:
        started = anyio.current_time()
        expired = error(504, "Deadline expired")
        again: set[str] = set()

        def answer(call: Call) -> Reply:
            if anyio.current_time() < started + 300:
                return expired
            if call.subject in again:
                return OK
            again.add(call.subject)
            return expired if len(again) > 1 else OK

        bench = Bench(lambda call, _n: answer(call))
        ends = await bench.all([f"k{n}" for n in range(12)])
        assert all(isinstance(end, Reply) for end in ends.values())

    virtually(scenario())


def test_a_full_storage_is_told_to_uploads_and_makes_other_calls_wait() -> None:
    """Only uploads know what to do about it; to any other call it is a refusal like others."""

    async def scenario() -> None:
        bench = Bench(lambda _call, n: FULL if n < 2 else OK)
        start = Call(route=Route.UPLOAD_START, method="POST", path="upload", total_seconds=1, subject="f")
        with pytest.raises(StorageFull):
            await bench.transport.send(start)
        assert not bench.drain.begun
        assert (await bench.transport.send(generate())).attempts == 2

    virtually(scenario())


def test_only_generate_calls_are_attempts() -> None:
    """What an upload or a poll took is not what an item's line counts."""

    async def scenario() -> None:
        bench = Bench(lambda _call, _n: error(404, "File not found"))
        poll = Call(route=Route.FILE_GET, method="GET", path="v1beta/files/a", total_seconds=1, subject="files/a")
        with pytest.raises(TryAgain) as again:
            await bench.transport.send(poll)
        assert again.value.attempts == 0
        bench = Bench(lambda _call, _n: UNAVAILABLE)
        start = Call(route=Route.UPLOAD_START, method="POST", path="upload", total_seconds=1, subject="f")
        with pytest.raises(ItemError) as failed:
            await bench.transport.send(start)
        assert (len(bench.service.calls), failed.value.attempts) == (6, 0)

    virtually(scenario())


@pytest.mark.parametrize("works_elsewhere", [True, False])
def test_an_odd_401_of_one_item_ends_that_item_alone(works_elsewhere: bool) -> None:
    """Long videos may be answered 401 with a good key; a key that works for nothing stops the run."""

    async def scenario() -> None:
        odd = error(401, "Request had invalid authentication credentials", "UNAUTHENTICATED")
        bench = Bench(lambda call, _n: odd if call.subject == "odd" else OK)
        if works_elsewhere:
            await bench.transport.send(generate("good"))
        with pytest.raises(ItemError if works_elsewhere else StopForHuman):
            await bench.transport.send(generate("odd"))
        assert bench.drain.begun is not works_elsewhere

    virtually(scenario())


@pytest.mark.parametrize("delay", ["0s", "0.001s", "0.1s"])
def test_a_service_that_names_too_short_a_delay_meets_no_storm(delay: str) -> None:
    """A minute in which every call is refused at once costs few calls a worker, not as many as the network carries."""

    async def scenario() -> None:
        started = anyio.current_time()

        async def answer() -> Reply:
            await anyio.sleep(0.05)
            return quota(delay=delay) if anyio.current_time() < started + 60 else OK

        bench = Bench(lambda _call, _n: answer())
        await bench.all([f"k{n}" for n in range(64)])
        assert len([at for at, _ in bench.service.calls if at < started + 60]) < 2 * 64

    virtually(scenario())


@pytest.mark.parametrize("estimate", [100, 1000, 5000])
def test_a_cap_on_tokens_holds_however_wrong_the_estimates_are(estimate: int) -> None:
    """Each call is set right by what it was charged itself, also if it left before the first answer taught more."""

    async def scenario() -> None:
        started, actual, tpm = anyio.current_time(), 1000, 10_000

        async def answer() -> Reply:
            await anyio.sleep(5)
            usage = {"promptTokenCount": actual}
            return Reply(status=200, headers={}, body=json.dumps({"usageMetadata": usage}).encode())

        bench = Bench(lambda _call, _n: answer(), tpm=tpm)
        await bench.all([f"k{n}" for n in range(30)], lambda key: generate(key, estimate))
        minutes = Counter(int((at - started) // 60) for at, _ in bench.service.calls)
        assert all(calls * actual <= tpm for calls in minutes.values())
        assert max(minutes) < 4

    virtually(scenario())
