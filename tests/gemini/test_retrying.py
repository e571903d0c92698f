"""The retrying transport against scripted services, in virtual time."""

from collections.abc import Callable
from itertools import pairwise

import anyio
import pytest

from pipeline.clock import SystemClock
from pipeline.drain import Drain
from pipeline.errors import Again, Draining, StopEarly, StopForHuman, StopRun, StorageFull
from pipeline.events import GateClosed, LimitLearnt, Retrying
from pipeline.gemini.api import Call, CallAgain, CallFailed, Reply, Route
from pipeline.gemini.governor.adaptive import AdaptiveGovernor
from pipeline.gemini.health import Patience
from pipeline.gemini.intents import JournalledTransport
from pipeline.gemini.models import KeyProbe
from pipeline.gemini.retrying import RetryingTransport, SessionLost
from pipeline.gemini.wire import FaultKind
from pipeline.spec import EndpointSpec, QuotaSpec
from tests.gemini.doubles import (
    OK,
    UNAVAILABLE,
    IntentBook,
    Recorder,
    Script,
    Service,
    error,
    generate,
    lost,
    quota,
    virtually,
)


class Bench:
    """A retrying transport over a scripted service."""

    def __init__(self, script: Script, *, attempts: int | None = 6, concurrency: int = 64, **caps: float) -> None:
        self.service = Service(script)
        self.drain = Drain()
        self.seen = Recorder()
        self.book = IntentBook()
        self.transport = RetryingTransport(
            JournalledTransport(self.service, self.book, SystemClock()),
            governor=AdaptiveGovernor(
                concurrency=concurrency,
                quota=QuotaSpec(**caps),
                drain=self.drain,
                observer=self.seen,
                clock=SystemClock(),
            ),
            key_check=KeyProbe(self.service, EndpointSpec()),
            attempts=attempts,
            patience=Patience(),
            drain=self.drain,
            observer=self.seen,
        )

    async def all(self, keys: list[str], call: Callable[[str], Call] = generate) -> dict[str, Reply | Exception]:
        """Send a call for each key at once; what became of each."""
        ends: dict[str, Reply | Exception] = {}

        async def one(key: str) -> None:
            try:
                ends[key] = await self.transport.send(call(key))
            except Exception as end:  # noqa: BLE001  # the test judges it
                ends[key] = end

        async with anyio.create_task_group() as group:
            for key in keys:
                group.start_soon(one, key)
        return ends


def test_service_faults_are_retried_until_the_attempts_are_used_up() -> None:
    """Six 503s end an item as unavailable, to be tried by the next run."""

    async def scenario() -> None:
        bench = Bench(lambda _call, _n: UNAVAILABLE)
        with pytest.raises(CallFailed) as caught:
            await bench.transport.send(generate())
        assert len(bench.service.calls) == caught.value.attempts == 6
        assert (caught.value.failure.kind, caught.value.failure.retryable) == ("unavailable", True)
        assert caught.value.failure.http_status == 503
        assert not caught.value.ambiguous
        assert len(bench.seen.of(Retrying)) == 5

    virtually(scenario())


def test_success_after_faults_tells_what_it_took() -> None:
    """The reply carries the calls it took and whether one of them may have been billed."""

    async def scenario() -> None:
        answers = [UNAVAILABLE, lost(FaultKind.RESET), OK]
        bench = Bench(lambda _call, n: answers[n])
        reply = await bench.transport.send(generate())
        assert (reply.attempts, reply.ambiguous) == (3, True)
        assert [call.attempt for _, call in bench.service.calls] == [1, 2, 3]

    virtually(scenario())


@pytest.mark.parametrize(("answer", "sent"), [(error(504, "Deadline"), 3), (error(418, "?", "TEAPOT"), 3)])
def test_some_rows_have_fewer_tries(answer: Reply, sent: int) -> None:
    """A 504 and an unknown signal are tried three times, not six."""

    async def scenario() -> None:
        bench = Bench(lambda _call, _n: answer)
        with pytest.raises(CallFailed):
            await bench.transport.send(generate())
        assert len(bench.service.calls) == sent

    virtually(scenario())


def test_intent_is_closed_where_nothing_was_billed_and_stays_open_otherwise() -> None:
    """A refusal settles; a success and a lost answer stay open, whatever attempts follow them."""

    async def scenario() -> None:
        answers = {"refused": [error(400, "no pages")], "ok": [OK], "lost": [lost(FaultKind.RESET), *[UNAVAILABLE] * 9]}
        bench = Bench(lambda call, _n: answers[call.subject].pop(0))
        await bench.all(list(answers))
        assert set(bench.book.open) == {"ok", "lost"}

    virtually(scenario())


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
        assert all(isinstance(ends[key], CallFailed) for key in poisoned)
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
        assert sum(isinstance(end, CallFailed) for end in ends.values()) == 20
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


@pytest.mark.parametrize(("good", "calls"), [(True, 3), (False, 2)])
def test_a_refused_key_is_confirmed_by_one_free_call(good: bool, calls: int) -> None:
    """A blip costs a retry; a refusal that the free call confirms stops the run."""

    async def scenario() -> None:
        refused = error(
            400, "API key not valid.", "INVALID_ARGUMENT", {"@type": "x.ErrorInfo", "reason": "API_KEY_INVALID"}
        )
        bench = Bench(lambda _c, n: refused if n == 0 or not good else OK)
        if good:
            assert (await bench.transport.send(generate())).attempts == 2
        else:
            with pytest.raises(StopForHuman):
                await bench.transport.send(generate())
        assert len(bench.service.calls) == calls
        assert bench.service.calls[1][1].path == "v1beta/models/m"

    virtually(scenario())


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (error(404, "models/x is not found", "NOT_FOUND"), StopForHuman),
        (error(429, "Your prepayment credits are depleted."), StopForHuman),
        (Reply(status=302, headers={"location": "https://evil.example.com/x"}, body=b""), StopForHuman),
        (lost(FaultKind.TLS_VERIFICATION), StopForHuman),
        (error(429, "Quota exceeded for metric: file_storage_bytes"), StorageFull),
    ],
)
def test_signals_that_end_more_than_an_item(answer: Reply, end: type[Exception]) -> None:
    """One such answer raises at once; a stop begins the drain."""

    async def scenario() -> None:
        bench = Bench(lambda _call, _n: answer)
        upload = Call(route=Route.UPLOAD_START, method="POST", path="upload", total_seconds=1, subject="f")
        with pytest.raises(end):
            await bench.transport.send(upload if end is StorageFull else generate())
        assert len(bench.service.calls) == 1
        assert bench.drain.begun is issubclass(end, StopRun)

    virtually(scenario())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (error(403, "You do not have permission to access the File ab-1 or it may not exist."), Again.FILE_GONE),
        (error(400, "The File ab-1 is not in an ACTIVE state and usage is not allowed."), Again.NOT_ACTIVE),
        (error(400, "Request contains an invalid argument."), Again.FRESH_UPLOAD),
    ],
)
def test_signals_that_ask_for_another_pass(answer: Reply, reason: Again) -> None:
    """The item goes round once more, and the file is named where the service names it."""

    async def scenario() -> None:
        bench = Bench(lambda _call, _n: answer)
        with pytest.raises(CallAgain) as caught:
            await bench.transport.send(generate())
        assert (caught.value.reason, caught.value.attempts) == (reason, 1)
        assert caught.value.file_names == (() if reason is Again.FRESH_UPLOAD else ("files/ab-1",))

    virtually(scenario())


def test_a_drain_ends_waits_but_not_calls_that_are_out() -> None:
    """The call that is out ends well; one that waits to be sent again is left for the next run."""

    async def scenario() -> None:
        async def slow() -> Reply:
            await anyio.sleep(60)
            return OK

        bench = Bench(lambda call, _n: slow() if call.subject == "out" else quota("PerMinute", delay="100s"))

        async def begin() -> None:
            await anyio.sleep(1)
            bench.drain.begin(143, "SIGTERM")

        async with anyio.create_task_group() as group:
            group.start_soon(begin)
            ends = await bench.all(["out", "waits"])
        assert isinstance(ends["out"], Reply)
        assert isinstance(ends["waits"], Draining)

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


def test_a_chunk_is_never_sent_again_blindly() -> None:
    """A lost chunk is handed back to the upload, which must ask for the offset."""

    async def scenario() -> None:
        bench = Bench(lambda _call, _n: lost(FaultKind.RESET))
        call = Call(route=Route.UPLOAD_CHUNK, method="POST", url="https://x/", total_seconds=1, subject="f")
        with pytest.raises(SessionLost) as caught:
            await bench.transport.send(call)
        assert (caught.value.dead, caught.value.charged) == (False, True)
        assert len(bench.service.calls) == 1

    virtually(scenario())


def test_polls_are_retried_without_an_attempt_limit() -> None:
    """A file is not lost by thirty bad polls."""

    async def scenario() -> None:
        bench = Bench(lambda _call, n: UNAVAILABLE if n < 30 else OK, attempts=None)
        call = Call(route=Route.FILE_GET, method="GET", path="v1beta/files/a", total_seconds=1, subject="files/a")
        assert (await bench.transport.send(call)).attempts == 31

    virtually(scenario())


@pytest.mark.parametrize(("free_call", "end"), [(OK, CallFailed), (None, StopForHuman)])
def test_a_call_that_the_endpoint_does_not_know(free_call: Reply | None, end: type[Exception]) -> None:
    """Where a free call speaks for the endpoint the item fails; where that is unknown too, the run stops."""

    async def scenario() -> None:
        page = Reply(status=404, headers={"content-type": "text/html"}, body=b"<title>404 Not Found</title>")
        bench = Bench(lambda call, _n: (free_call or page) if call.route is Route.MODEL_GET else page)
        with pytest.raises(end):
            await bench.transport.send(generate())
        assert bench.drain.exit_code == (None if free_call else 5)

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
