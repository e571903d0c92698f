"""Generation and the preflight check."""

from datetime import datetime

import anyio
import pytest

from pipeline.clock import SystemClock
from pipeline.drain import Drain
from pipeline.errors import ItemError, StopEarly, StopForHuman
from pipeline.events import CallEnded, CallSent
from pipeline.gemini.api import Call, GenerateRequest, Reply
from pipeline.gemini.client import key_hash, open_client
from pipeline.gemini.models import ModelsClient, model_path
from pipeline.gemini.wire import FaultKind, TransportFault
from pipeline.spec import EndpointSpec, GenerationSpec
from tests.gemini.conftest import CANARY, raw_server, says
from tests.gemini.doubles import OK, UNAVAILABLE, IntentBook, Recorder, Service, error, lost, quota, virtually

HTML = Reply(status=200, headers={"content-type": "text/html"}, body=b"<html>")
BAD_KEY = error(400, "API key not valid.", "INVALID_ARGUMENT", {"@type": "x.ErrorInfo", "reason": "API_KEY_INVALID"})
GATEWAY = EndpointSpec(base_url="https://gateway.example.com")


def client(service: Service, endpoint: EndpointSpec = GATEWAY, **spec: float) -> ModelsClient:
    return ModelsClient(calls=service, plain=service, endpoint=endpoint, spec=GenerationSpec(**spec))


@pytest.mark.parametrize(
    ("answer", "endpoint", "end", "calls"),
    [
        (OK, GATEWAY, None, 1),
        (BAD_KEY, GATEWAY, StopForHuman, 2),
        (error(401, "no"), GATEWAY, StopForHuman, 2),
        (error(403, "The caller does not have permission", "PERMISSION_DENIED"), GATEWAY, StopForHuman, 1),
        (error(404, "models/m is not found", "NOT_FOUND"), GATEWAY, StopForHuman, 1),
        (HTML, GATEWAY, StopForHuman, 2),
        (Reply(status=301, headers={"location": "/x"}, body=b""), GATEWAY, StopForHuman, 1),
        (Reply(status=404, headers={}, body=b"not found"), GATEWAY, None, 2),
        (Reply(status=405, headers={}, body=b""), GATEWAY, None, 2),
        (Reply(status=501, headers={}, body=b""), GATEWAY, None, 2),
        (UNAVAILABLE, GATEWAY, None, 2),
        (error(429, "Resource has been exhausted"), GATEWAY, None, 2),
        (lost(FaultKind.RESET), GATEWAY, None, 2),
        (lost(FaultKind.CONNECT), GATEWAY, StopForHuman, 3),
        (lost(FaultKind.DNS), EndpointSpec(), StopEarly, 3),
        (lost(FaultKind.TLS_VERIFICATION), EndpointSpec(), StopForHuman, 1),
    ],
)
def test_check(answer: Reply | TransportFault, endpoint: EndpointSpec, end: type[Exception] | None, calls: int) -> None:
    """Key, model and base URL are judged in at most three calls; what settles nothing is no error."""

    async def scenario() -> None:
        service = Service(lambda _call, _n: answer)
        if end is None:
            await client(service, endpoint).check("m")
        else:
            with pytest.raises(end):
                await client(service, endpoint).check("m")
        assert len(service.calls) == calls

    virtually(scenario())


def test_a_connection_that_comes_back_is_asked_no_more() -> None:
    """Its second answer settles it; a third call could only be lost again."""

    async def scenario() -> None:
        service = Service(lambda _call, n: OK if n == 1 else lost(FaultKind.CONNECT))
        await client(service).check("m")
        assert len(service.calls) == 2

    virtually(scenario())


def test_key_that_is_refused_once_only_passes_the_check() -> None:
    """Good keys are refused now and then; one more call tells."""
    service = Service(lambda _call, n: BAD_KEY if n == 0 else OK)
    virtually(client(service).check("m"))


@pytest.mark.parametrize(
    ("timeout", "header", "total"), [(600.0, "600", 615.0), (45.5, "46", 60.5), (29.0, None, 29.0), (1.0, None, 1.0)]
)
def test_server_timeout_is_never_small_and_the_client_waits_longer(
    timeout: float, header: str | None, total: float
) -> None:
    """A small X-Server-Timeout is answered 500; a server that was given a time is waited for a little longer."""

    async def scenario() -> Call:
        service = Service(lambda _call, _n: OK)
        await client(service, timeout_seconds=timeout).generate(
            GenerateRequest(key="k", model="m", body=b"{}", tokens=7)
        )
        return service.calls[0][1]

    call = virtually(scenario())
    assert call.headers.get("X-Server-Timeout") == header
    assert call.total_seconds == call.idle_seconds == total
    assert (call.path, call.subject, call.tokens) == ("v1beta/models/m:generateContent", "k", 7)


@pytest.mark.parametrize("model", ["", "../files", "m?key=x", "models/", "a/b", "models/a b", "m:countTokens", "m\n"])
def test_what_is_no_model_name_is_never_put_into_a_url(model: str) -> None:
    """A row's model is data: it fails its item, and the check stops before anything is sent."""

    async def scenario() -> None:
        service = Service(lambda _call, _n: OK)
        with pytest.raises(ItemError):
            await client(service).generate(GenerateRequest(key="k", model=model, body=b"", tokens=0))
        with pytest.raises(StopForHuman):
            await client(service).check(model)
        assert service.calls == []

    virtually(scenario())


def test_model_names_with_and_without_collection() -> None:
    """``models/`` may be given or not; tuned models have a collection of their own."""
    assert model_path("v1", "m") == model_path("v1", "models/m") == "v1/models/m"
    assert model_path("v1", "tunedModels/t") == "v1/tunedModels/t"


async def test_open_client_generates_journals_and_tells() -> None:
    """Put together, a call is journalled, observed, sent with the key, and its answer decoded."""
    seen, book = Recorder(), IntentBook()
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"candidates":[]}'
    async with (
        raw_server(says(answer)) as server,
        open_client(
            api_key=CANARY,
            ledger=book,
            drain=Drain(),
            observer=seen,
            clock=SystemClock(),
            endpoint=EndpointSpec(base_url=server.url),
        ) as opened,
    ):
        response = await opened.models.generate(GenerateRequest(key="k", model="m", body=b'{"a":1}', tokens=1))
    assert (response.body, response.attempts, response.ambiguous) == ({"candidates": []}, 1, False)
    assert book.open == {"k": 1}
    assert [event.subject for event in seen.of(CallSent)] == ["k"]
    assert [event.status for event in seen.of(CallEnded)] == [200]
    assert server.requests[0].endswith(b'{"a":1}')
    assert CANARY not in repr(seen.events) + repr(opened)


async def test_a_ledger_that_has_failed_does_not_hide_how_the_run_ended() -> None:
    """What was learnt can't be kept then; the end of the client is no place to say so."""

    class Broken(IntentBook):
        async def learn(self, name: str, value: str, at: datetime) -> None:
            raise StopForHuman("the ledger's disk is full")

    replies = iter([quota("GenerateRequestsPerMinute", delay="0.01s"), OK])

    async def handler(_request: bytes, stream: anyio.abc.SocketStream) -> None:
        reply = next(replies)
        await stream.send(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (reply.status, len(reply.body)) + reply.body)

    async with (
        raw_server(handler) as server,
        open_client(
            api_key=CANARY,
            ledger=Broken(),
            drain=Drain(),
            observer=Recorder(),
            clock=SystemClock(),
            endpoint=EndpointSpec(base_url=server.url),
        ) as opened,
    ):
        await opened.models.generate(GenerateRequest(key="k", model="m", body=b"{}", tokens=1))


def test_key_hash_scopes_without_telling() -> None:
    """The same key gives the same scope, another key another, and neither shows the key."""
    assert key_hash("a") == key_hash("a") != key_hash("b")
    assert len(key_hash(CANARY)) == 16
    assert key_hash(None)
