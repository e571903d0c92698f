"""Raw servers that keep their connections, and calls to them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from msgspec import structs

from pipeline.gemini.api import Call, Route

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def call(body: bytes = b"{}", *, method: str = "POST", total_seconds: float = 5.0, **given: object) -> Call:
    return Call(
        route=Route.GENERATE,
        method=method,
        path="v1beta/models/m:generateContent?x=1",
        body=body,
        body_bytes=len(body),
        total_seconds=total_seconds,
        **given,
    )


def streamed(pieces: int, *, fails: Exception | None = None) -> Call:
    """A call whose body comes in pieces of a megabyte, and may fail after the last of them."""

    async def body() -> AsyncIterator[bytes]:
        for number in range(pieces):
            yield bytes([number]) * 1_000_000
        if fails:
            raise fails

    return structs.replace(call(), body=body, body_bytes=(pieces + bool(fails)) * 1_000_000)


class Conversations:
    """A server that keeps its connections; ``answer`` is sent for each request, whole as far as its length goes."""

    def __init__(self, answer: Callable[[int, anyio.abc.SocketStream], Awaitable[None]]) -> None:
        self._answer = answer
        self.connections = 0
        self.requests: list[bytes] = []
        self.ended = 0
        self.url = ""

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        """One connection."""
        self.connections += 1
        received = b""
        async with stream:
            try:
                while True:
                    while b"\r\n\r\n" not in received:
                        received += await stream.receive()
                    head, _, received = received.partition(b"\r\n\r\n")
                    lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                    length = int(lengths[0]) if lengths else 0
                    while len(received) < length:
                        received += await stream.receive()
                    self.requests.append(head + b"\r\n\r\n" + received[:length])
                    received = received[length:]
                    await self._answer(len(self.requests), stream)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                self.ended += 1


@asynccontextmanager
async def conversations(
    answer: Callable[[int, anyio.abc.SocketStream], Awaitable[None]],
) -> AsyncIterator[Conversations]:
    """Such a server on loopback for one test."""
    server = Conversations(answer)
    async with raw_listener(server.serve) as server.url:
        yield server


@asynccontextmanager
async def raw_listener(serve: Callable[[anyio.abc.SocketStream], Awaitable[None]]) -> AsyncIterator[str]:
    """Its URL; ``serve`` has every connection that is made."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{port}"
        group.cancel_scope.cancel()


async def always(_number: int, stream: anyio.abc.SocketStream) -> None:
    await stream.send(OK)


class Unread:
    """A server that answers 413 to the beginning of a request and takes no more."""

    def __init__(self) -> None:
        self.connections = 0

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        """One connection."""
        self.connections += 1
        async with stream:
            await stream.receive(1000)
            await stream.send(b"HTTP/1.1 413 x\r\nContent-Length: 0\r\n\r\n")
            await anyio.sleep_forever()
