"""The retrying transport against scripted services, in virtual time: what becomes of a call by its signal."""

import anyio
import pytest

from pipeline.errors import Again, Draining, ItemError, StopForHuman, StopRun, StorageFull, TryAgain
from pipeline.events import Retrying
from pipeline.gemini.api import Call, Reply, Route
from pipeline.gemini.retrying import SessionLost
from pipeline.gemini.wire import FaultKind
from tests.gemini.bench import Bench
from tests.gemini.doubles import OK, UNAVAILABLE, error, generate, lost, quota, virtually


def test_service_faults_are_retried_until_the_attempts_are_used_up() -> None:
    """Six 503s end an item as unavailable, to be tried by the next run."""

    async def scenario() -> None:
        bench = Bench(lambda _call, _n: UNAVAILABLE)
        with pytest.raises(ItemError) as caught:
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
        with pytest.raises(ItemError):
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
        with pytest.raises(TryAgain) as caught:
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


@pytest.mark.parametrize(("free_call", "end"), [(OK, ItemError), (None, StopForHuman)])
def test_a_call_that_the_endpoint_does_not_know(free_call: Reply | None, end: type[Exception]) -> None:
    """Where a free call speaks for the endpoint the item fails; where that is unknown too, the run stops."""

    async def scenario() -> None:
        page = Reply(status=404, headers={"content-type": "text/html"}, body=b"<title>404 Not Found</title>")
        bench = Bench(lambda call, _n: (free_call or page) if call.route is Route.MODEL_GET else page)
        with pytest.raises(end):
            await bench.transport.send(generate())
        assert bench.drain.exit_code == (None if free_call else 5)

    virtually(scenario())
