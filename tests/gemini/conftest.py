"""Servers that speak what a test tells them, byte by byte, and aioresponses mended for this aiohttp."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from unittest.mock import Mock

import aiohttp
import aioresponses.core
import anyio
import pytest

from pipeline.gemini.transport import HttpTransport, open_transport

Handler = Callable[[bytes, anyio.abc.SocketStream], Awaitable[None]]

CANARY = "AIza-canary-0123456789"


class RawServer:
    """Reads one request a connection, whole as far as its Content-Length goes, and lets ``handler`` answer."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.requests: list[bytes] = []
        self.url = ""

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            request = b""
            try:
                while b"\r\n\r\n" not in request:
                    request += await stream.receive()
                head, _, body = request.partition(b"\r\n\r\n")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length")
                    ),
                    0,
                )
                while len(body) < length:
                    body += await stream.receive()
                self.requests.append(head + b"\r\n\r\n" + body)
                await self._handler(request, stream)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                self.requests.append(request)


@asynccontextmanager
async def raw_server(handler: Handler) -> AsyncIterator[RawServer]:
    """A server on loopback for one test."""
    server = RawServer(handler)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610
    server.url = f"http://127.0.0.1:{port}"
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, server.serve)
        yield server
        group.cancel_scope.cancel()


def says(*parts: bytes) -> Handler:
    """A handler that sends ``parts`` and closes."""

    async def handler(_request: bytes, stream: anyio.abc.SocketStream) -> None:
        for part in parts:
            await stream.send(part)

    return handler


def transport_to(base_url: str, key: str | None = CANARY) -> AbstractAsyncContextManager[HttpTransport]:
    """The real transport, with a key that must not be found anywhere."""
    return open_transport(base_url=base_url, key=key, connections=4)


@pytest.fixture
def mended_aioresponses(monkeypatch: pytest.MonkeyPatch) -> None:
    """aioresponses 0.7.9 builds a ClientResponse as aiohttp before 3.14 took it: without a stream writer."""

    class Response(aiohttp.ClientResponse):
        def __init__(self, *given: Any, **named: Any) -> None:
            named.setdefault("stream_writer", Mock(output_size=0))
            super().__init__(*given, **named)

    monkeypatch.setattr(aioresponses.core, "ClientResponse", Response)
