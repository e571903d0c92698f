"""Generation, and the free check of key, model and endpoint that precedes it."""

import math
import re

import anyio

from pipeline.clock import monotonic
from pipeline.errors import Failure, ItemError, StopEarly, StopForHuman
from pipeline.gemini.api import Call, GenerateRequest, GenerateResponse, Reply, Route, Transport
from pipeline.gemini.classify import classify
from pipeline.gemini.signals import Action, Verdict
from pipeline.gemini.wire import FaultKind, TransportFault
from pipeline.spec import DEFAULT_BASE_URL, EndpointSpec, GenerationSpec

SERVER_TIMEOUT_FLOOR_SECONDS = 30
"""No smaller ``X-Server-Timeout`` is sent: small ones are refused or answered 500 (googleapis/python-genai#1330)."""

SERVER_MARGIN_SECONDS = 15.0
"""The client waits this much longer than the server was given, so that it never cuts off what is being paid for;
a server that was given no time ends no call, and waiting on would win nothing."""

CHECK_SECONDS = 30.0
_MODEL = re.compile(r"(?:(?:models|tunedModels)/)?[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


class ModelsClient:
    """Answers ``ModelsApi``. ``calls`` retries; ``plain`` does not, and carries the check."""

    def __init__(self, *, calls: Transport, plain: Transport, endpoint: EndpointSpec, spec: GenerationSpec) -> None:
        self._calls = calls
        self._plain = plain
        self._endpoint = endpoint
        self._spec = spec

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        path = model_path(self._endpoint.api_version, request.model)
        if path is None:
            message = f"not the name of a model: {request.model[:80]!r}"
            raise ItemError(Failure(stage="generation", kind="invalid_request", message=message))
        headers = {"Content-Type": "application/json"}
        total_seconds = self._spec.timeout_seconds
        server_seconds = math.ceil(total_seconds)
        if server_seconds >= SERVER_TIMEOUT_FLOOR_SECONDS:
            headers["X-Server-Timeout"] = str(server_seconds)
            total_seconds += SERVER_MARGIN_SECONDS
        reply = await self._calls.send(
            Call(
                route=Route.GENERATE,
                method="POST",
                path=f"{path}:generateContent",
                headers=headers,
                body=request.body,
                body_bytes=len(request.body),
                total_seconds=total_seconds,
                idle_seconds=total_seconds,  # a model thinks in silence
                subject=request.key,
                model=request.model.removeprefix("models/"),
                tokens=request.tokens,
            )
        )
        # RetryingTransport has made sure that it is JSON; JSON that is no object reads as an answer without content.
        body = reply.value if isinstance(reply.value, dict) else {}
        return GenerateResponse(body=body, attempts=reply.attempts, ambiguous=reply.ambiguous)

    async def check(self, model: str) -> None:
        path = model_path(self._endpoint.api_version, model)
        if path is None:
            raise StopForHuman(f"not the name of a model: {model[:80]!r}; choose one with --model")
        verdict = await self._ask(path)
        for pause in _pauses(verdict):
            await anyio.sleep(pause)
            verdict = await self._ask(path)
            if not _pauses(verdict):
                break
        self._judge(verdict)

    async def _ask(self, path: str) -> Verdict:
        return classify(Route.MODEL_GET, await ask(self._plain, path))

    def _judge(self, verdict: Verdict) -> None:
        fault = verdict.signal.fault
        if fault is not None and verdict.never_connected and fault.kind is not FaultKind.TLS_VERIFICATION:
            if self._endpoint.base_url.rstrip("/") == DEFAULT_BASE_URL:
                raise StopEarly(f"the service can't be reached ({fault}); run again when the network is back")
            raise StopForHuman(f"nothing answers at {self._endpoint.base_url} ({fault}); correct the base URL")
        if verdict.action in (Action.STOP_HUMAN, Action.PROBE_KEY):
            raise StopForHuman(verdict.message)
        if 200 <= verdict.signal.status < 300 and verdict.action is not Action.SUCCESS:
            raise StopForHuman(f"{self._endpoint.base_url} doesn't speak the Gemini API; correct the base URL")


class KeyProbe:
    """Answers ``KeyCheck``: one call for all that doubt the key at once."""

    def __init__(self, plain: Transport, endpoint: EndpointSpec) -> None:
        self._plain = plain
        self._path = f"{endpoint.api_version}/models?pageSize=1"
        self._lock = anyio.Lock()
        self._asked_at = -math.inf
        self._answer: bool | None = None

    async def works(self, call: Call) -> bool | None:
        """A refusal counts only where this call, too, is refused: good keys are refused now and then."""
        doubted_at = monotonic()
        async with self._lock:
            if self._asked_at < doubted_at:
                path = call.path.removesuffix(":generateContent") if call.route is Route.GENERATE else self._path
                verdict = classify(Route.MODEL_GET, await ask(self._plain, path))
                refused = verdict.action in (Action.PROBE_KEY, Action.STOP_HUMAN)
                self._answer = True if verdict.action is Action.SUCCESS else False if refused else None
                self._asked_at = monotonic()
            return self._answer


async def ask(plain: Transport, path: str) -> Reply | TransportFault:
    """One free GET, whatever comes of it."""
    try:
        return await plain.send(
            Call(route=Route.MODEL_GET, method="GET", path=path, total_seconds=CHECK_SECONDS, subject=path)
        )
    except TransportFault as fault:
        return fault


def model_path(api_version: str, model: str) -> str | None:
    """The path of a model named with or without its collection; None for what can't be a name."""
    if not _MODEL.fullmatch(model):
        return None
    return f"{api_version}/{model if '/' in model else f'models/{model}'}"


def _pauses(first: Verdict) -> tuple[float, ...]:
    """When to ask again: a lost connection twice; a refused key and a troubled service once."""
    if first.action in (Action.SUCCESS, Action.STOP_HUMAN):
        return ()
    return (0.5, 1.0) if first.never_connected else (0.5,)
