"""The emulator as an HTTP server on loopback; changes when the way of a request through it does."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from pipeline.clock import timestamp
from pipeline.emulator import api_errors, routes_files, routes_models, routes_uploads
from pipeline.emulator.delivery import deliver
from pipeline.emulator.exchange import Exchange, Work
from pipeline.emulator.ledger import Call
from pipeline.emulator.plan import Plan, check_faults
from pipeline.emulator.reply import Refusal, Reply, Reset
from pipeline.emulator.routes_control import control
from pipeline.emulator.routing import Target, target_of
from pipeline.emulator.service import Service
from pipeline.emulator.virtual_clock import VirtualClock
from pipeline.limits import SERVER_TIMEOUT_MIN_SECONDS

HOST = "127.0.0.1"
CONTROL_BODY_BYTES_MAX = 16 * 1024 * 1024
READ_BUFFER_BYTES = 1024 * 1024

Prepare = Callable[[Service, Exchange], Awaitable[Work]]

HANDLERS: dict[str, Prepare] = {
    "upload_start": routes_uploads.start,
    "upload_multipart": routes_uploads.multipart,
    "upload_chunk": routes_uploads.in_session,
    "finalize": routes_uploads.in_session,
    "query": routes_uploads.in_session,
    "cancel": routes_uploads.in_session,
    "file_get": routes_files.get,
    "file_list": routes_files.list_page,
    "file_delete": routes_files.delete,
    "model_get": routes_models.get,
    "model_list": routes_models.list_page,
    "generate": routes_models.generate,
    "stream": routes_models.stream,
    "count_tokens": routes_models.count_tokens,
}
IN_SESSION = frozenset({"upload_chunk", "finalize", "query", "cancel"})
"""Calls that the upload URL authorises."""


class Emulator:
    """A local server of the Gemini API: ``async with Emulator() as emulator: emulator.base_url``."""

    def __init__(self, plan: Plan | None = None, *, port: int = 0) -> None:
        self._plan = plan or Plan()
        check_faults(self._plan)
        self._port = port
        self.clock = VirtualClock()
        self.service = Service(self._plan, self.clock)
        self.base_url = ""
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        server = web.Server(self._handle, access_log=None, handler_cancellation=True, read_bufsize=READ_BUFFER_BYTES)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, self._port)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        self.service.close()

    def ledger(self) -> dict[str, Any]:
        """What happened so far, as ``/emulator/ledger`` tells it."""
        sessions = self.service.sessions
        return self.service.ledger.summary(open_sessions=sessions.open, most_open_sessions=sessions.most_open)

    def calls(self) -> list[Call]:
        """Every call that has ended."""
        return self.service.ledger.calls

    def reset(self) -> None:
        """Forget everything, and follow the current plan from its beginning."""
        plan = self.service.plan
        self.service.close()
        self.service = Service(plan, self.clock)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith("/emulator/"):
            exchange = Exchange(request, Target("control", ""), ("control",))
            body = await exchange.body(CONTROL_BODY_BYTES_MAX)
            return await deliver(exchange, control(self, request.method, request.path, body))
        target = target_of(request.method, request.path)
        if target is None:
            unknown = Exchange(request, Target("unknown", ""), ("unknown",))
            return await self._recorded(unknown, _unknown)
        routes: tuple[str, ...] = (target.route,)
        if target.route == "upload":
            routes = routes_uploads.routes_of_upload(request.headers, request.query.get("upload_id", ""))
        return await self._recorded(Exchange(request, target, routes), self._answer)

    async def _recorded(self, exchange: Exchange, answer: Callable[[Exchange], Awaitable[Reply]]) -> web.StreamResponse:
        """Answer one request and write down how it ended."""
        ledger, started = self.service.ledger, time.perf_counter()
        route = exchange.routes[0]
        call = Call(time=timestamp(self.clock.now()), route=route, path=exchange.request.path)
        ledger.begin(route)
        try:
            reply = await answer(exchange)
            call.status = reply.status
            response = await deliver(exchange, reply)
            if reply.delivery.startswith("cut"):
                call.ending = "reset"
        except Reset:
            call.ending = "reset"
            exchange.reset()
            response = web.Response()
        except (asyncio.CancelledError, ConnectionError):
            call.ending = "client_left"
            raise
        except BaseException:
            call.ending = "crashed"
            raise
        finally:
            call.identity, call.attempt, call.fault = exchange.identity, exchange.attempt, exchange.fault
            call.bytes_received = exchange.bytes_received
            call.milliseconds = round((time.perf_counter() - started) * 1000, 3)
            ledger.end(call, route)
        return response

    async def _answer(self, exchange: Exchange) -> Reply:
        """The call's reply, or that of the fault that strikes it."""
        service = self.service
        try:
            self._authorise(exchange)
            work = await HANDLERS[exchange.routes[0]](service, exchange)
            service.faults.number_attempt(exchange)
            strike = service.faults.strike(exchange, work, service.files, service.seconds())
            if strike is None:
                reply = await work()
            else:
                exchange.fault = strike.fault.kind
                reply = await strike.reply()
        except Refusal as refusal:
            reply = refusal.reply
        await self._wait(exchange)
        return reply

    async def _wait(self, exchange: Exchange) -> None:
        latency, route = self.service.plan.latency, exchange.routes[0]
        if route in {"generate", "stream", "count_tokens"}:
            setting = latency.generate
        elif route.startswith("file_"):
            setting = latency.files
        elif route.startswith("model_"):
            return
        else:
            setting = latency.upload
        if setting:
            await asyncio.sleep(self.service.latency_seconds(setting))

    def _authorise(self, exchange: Exchange) -> None:
        """Refuse a request without a good key, or with too short a deadline."""
        if exchange.routes[0] in IN_SESSION:
            return
        request, plan = exchange.request, self.service.plan
        key = request.headers.get("x-goog-api-key") or request.query.get("key", "")
        if not key:
            raise Refusal(api_errors.no_key())
        if key in plan.refused_keys or (plan.accepted_keys and key not in plan.accepted_keys):
            raise Refusal(api_errors.key_invalid())
        exchange.project = key
        deadline = request.headers.get("X-Server-Timeout", "")
        if deadline.replace(".", "", 1).isdigit() and float(deadline) < SERVER_TIMEOUT_MIN_SECONDS:
            raise Refusal(api_errors.deadline_too_short(float(deadline), SERVER_TIMEOUT_MIN_SECONDS))


async def _unknown(_: Exchange) -> Reply:
    return api_errors.unknown_path()
