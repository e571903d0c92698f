"""Calls over aiohttp's connections: the same on the wire as a session's, and no connection kept that must not be."""

import asyncio
import gzip
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import anyio
import pytest
from aioresponses import aioresponses
from msgspec import structs

from pipeline.gemini.api import Call, Reply, Route
from pipeline.gemini.exchange import Exchange
from pipeline.gemini.transport import HttpTransport
from pipeline.gemini.wire import FaultKind, TransportFault
from tests.gemini.conftest import CANARY, raw_server, says, transport_to

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


CALLS = [
    call(headers={"Content-Type": "application/json"}),
    call(b"\x00\xff" * 500, headers={"Accept-Encoding": "identity", "X-Goog-Upload-Command": "upload, finalize"}),
    call(b""),
    call(b"", method="GET"),
    call(b"", method="DELETE"),
    streamed(3, fails=None),
]


@pytest.mark.parametrize("one", CALLS, ids=["json", "octets", "empty", "get", "delete", "streamed"])
async def test_the_same_goes_over_the_wire_as_a_session_would_send(one: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Request line, headers and body; only the order of the headers is free (RFC 9110 5.3)."""
    sent = []
    for way in (Exchange, lambda _session: None):
        monkeypatch.setattr("pipeline.gemini.transport.Exchange", way)
        async with conversations(always) as server, transport_to(server.url) as transport:
            await transport.send(one)
        [request] = server.requests
        head, _, body = request.replace(server.url[7:].encode(), b"host").partition(b"\r\n\r\n")
        first, *headers = head.split(b"\r\n")
        sent.append((first, sorted(line.lower() for line in headers), body))
    assert sent[0] == sent[1]


async def test_one_connection_serves_call_after_call() -> None:
    """Also after a refusal, and after an answer in chunks, packed or without a body."""
    answers = [
        OK,
        b"HTTP/1.1 429 x\r\nContent-Length: 3\r\n\r\nno!",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(gzip.compress(b"packed"))
        + gzip.compress(b"packed"),
    ]

    async def answer(number: int, stream: anyio.abc.SocketStream) -> None:
        await stream.send(answers[number - 1])

    async with conversations(answer) as server, transport_to(server.url) as transport:
        replies = [await transport.send(call()) for _ in answers]
        assert server.connections == 1
    assert [(reply.status, reply.body) for reply in replies] == [
        (200, b"{}"),
        (429, b"no!"),
        (200, b"{}"),
        (204, b""),
        (200, b"packed"),
    ]


async def test_what_comes_before_the_reply_is_passed_over() -> None:
    """1xx responses announce one (RFC 9110 15.2)."""
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with raw_server(says(early, OK)) as server, transport_to(server.url) as transport:
        reply = await transport.send(call())
    assert (reply.status, reply.body) == (200, b"{}")


async def test_connection_that_the_server_closed_meanwhile_is_not_used() -> None:
    """Kept-alive connections end when the server is tired of them; the next call gets a new one."""

    async def once(_number: int, stream: anyio.abc.SocketStream) -> None:
        await stream.send(OK)
        await stream.aclose()

    async with conversations(once) as server, transport_to(server.url) as transport:
        for _ in range(3):
            await transport.send(call())
            await anyio.sleep(0.05)
        assert server.connections == 3


async def test_reply_that_says_close_ends_its_connection() -> None:
    """It is not kept for another call."""

    async def closing(_number: int, stream: anyio.abc.SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")

    async with conversations(closing) as server, transport_to(server.url) as transport:
        await transport.send(call())
        await transport.send(call())
        assert server.connections == 2


async def test_call_that_is_given_up_takes_its_connection_with_it() -> None:
    """Its late answer must not be taken for the next call's."""

    async def late_once(number: int, stream: anyio.abc.SocketStream) -> None:
        if number == 1:
            await anyio.sleep(0.3)
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
        else:
            await stream.send(OK)

    async with conversations(late_once) as server, transport_to(server.url) as transport:
        with anyio.move_on_after(0.1):
            await transport.send(call())
        await anyio.sleep(0.4)
        assert (await transport.send(call())).body == b"{}"
        assert server.connections == 2


async def test_answer_before_the_request_was_read_ends_the_connection() -> None:
    """What of the request has not left by then would stand before the next one."""
    connections = 0

    async def unread(stream: anyio.abc.SocketStream) -> None:
        nonlocal connections
        connections += 1
        async with stream:
            await stream.receive(1000)
            await stream.send(b"HTTP/1.1 413 x\r\nContent-Length: 0\r\n\r\n")
            await anyio.sleep_forever()

    body = b"x" * 32 * 1024 * 1024  # more than the system takes in
    async with raw_listener(unread) as url, aiohttp.ClientSession() as session:
        exchange = Exchange(session)
        for _ in range(3):
            headers = {"Content-Length": str(len(body))}
            status, _, _ = await exchange.send("POST", f"{url}/x", headers, body, aiohttp.ClientTimeout())
            assert status == 413
    assert connections == 3


async def test_one_connection_serves_bodies_in_pieces() -> None:
    """All of a body has left before the next request does."""
    async with conversations(always) as server, transport_to(server.url) as transport:
        for pieces in (1, 7, 3):
            assert (await transport.send(streamed(pieces))).body == b"{}"
        assert server.connections == 1
    assert [len(request.partition(b"\r\n\r\n")[2]) for request in server.requests] == [1_000_000, 7_000_000, 3_000_000]


async def test_an_answer_before_all_pieces_were_sent_is_taken() -> None:
    """The rest is not sent, and its connection serves nobody else."""
    connections = 0

    async def unread(stream: anyio.abc.SocketStream) -> None:
        nonlocal connections
        connections += 1
        async with stream:
            await stream.receive(1000)
            await stream.send(b"HTTP/1.1 413 x\r\nContent-Length: 0\r\n\r\n")
            await anyio.sleep_forever()

    async with raw_listener(unread) as url, transport_to(url) as transport:
        for number in (1, 2, 3):
            assert (await transport.send(streamed(40))).status == 413
            assert connections == number


async def test_what_a_body_raises_is_raised_and_ends_the_connection() -> None:
    """Nobody waits for an answer to half a request."""
    async with conversations(always) as server, transport_to(server.url) as transport:
        with anyio.fail_after(2), pytest.raises(LookupError, match="gone"):
            await transport.send(streamed(2, fails=LookupError("gone")))
        assert (await transport.send(call())).body == b"{}"
        assert server.connections == 2


async def test_no_more_than_was_announced_goes_out() -> None:
    """The server would take the rest for the next request."""
    async with conversations(always) as server, transport_to(server.url) as transport:
        with pytest.raises(TransportFault, match="announced"):
            await transport.send(structs.replace(streamed(2), body_bytes=1_500_000))
        assert (await transport.send(call())).body == b"{}"
    assert [request.partition(b"\r\n\r\n")[2] for request in server.requests] == [b"{}"]


async def test_a_body_that_is_cut_off_from_within_leaves_no_connection() -> None:
    """As where the thread that reads it is shut down: the next request's head would become the rest of it."""

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise asyncio.CancelledError

    async def at_once(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive(1000)
            await anyio.sleep(0.1)
            await stream.send(OK)
            await anyio.sleep_forever()

    async with raw_listener(at_once) as url, transport_to(url) as transport:
        with anyio.fail_after(2), pytest.raises(TransportFault):
            await transport.send(structs.replace(call(), body=body, body_bytes=5000))


async def test_a_connection_that_breaks_between_pieces_is_a_fault() -> None:
    """Also where the server has taken no more for a while; the body may have been taken."""

    async def breaks(stream: anyio.abc.SocketStream) -> None:
        await stream.receive(1000)
        await anyio.sleep(0.2)
        await stream.aclose()

    async with raw_listener(breaks) as url, transport_to(url) as transport:
        with anyio.fail_after(3), pytest.raises(TransportFault) as caught:
            await transport.send(streamed(40))
    assert caught.value.kind in {FaultKind.DISCONNECTED, FaultKind.RESET}
    assert caught.value.body_sent


async def test_pieces_that_are_given_up_leave_nothing_behind() -> None:
    """Their task ends with the call."""

    async def still(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    async with raw_listener(still) as url, transport_to(url) as transport:
        with anyio.move_on_after(0.2):
            await transport.send(streamed(40))
        with pytest.raises(TransportFault) as caught:
            await transport.send(structs.replace(streamed(40), total_seconds=0.2))
        await anyio.sleep(0.05)
        assert not [task for task in asyncio.all_tasks() if "_send_pieces" in repr(task)]
    assert caught.value.kind is FaultKind.TIMEOUT_TOTAL


async def test_nobody_takes_the_connection() -> None:
    """A listener whose queue is full answers no handshake: the call was never sent."""
    import socket

    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        async with transport_to(f"http://127.0.0.1:{port}") as transport:
            with pytest.raises(TransportFault) as caught:
                await transport.send(call(total_seconds=0.5))
        for one in waiting:
            one.close()
    assert caught.value.kind in {FaultKind.TIMEOUT_CONNECT, FaultKind.TIMEOUT_TOTAL}


async def test_tls_is_spoken_where_the_certificate_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call and its reply over TLS, the connection kept for the next."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout k.pem -out c.pem"
    alternative = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*make.split(), *alternative], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "c.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    connections = 0
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(2)
                writer.write(OK)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        left.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with transport_to(f"https://127.0.0.1:{port}") as transport:
        replies = [await transport.send(call()) for _ in range(3)]
    await left.wait()
    server.close()
    assert [reply.body for reply in replies] == [b"{}"] * 3
    assert connections == 1


@pytest.mark.parametrize("bad", ["a\r\nX-Injected: 1", "a\nb", "a\0b"])
async def test_nothing_in_a_header_can_begin_another(bad: str) -> None:
    """The request is not sent at all."""
    async with conversations(always) as server, transport_to(server.url) as transport:
        with pytest.raises(ValueError, match="control characters") as caught:
            await transport.send(call(headers={"X-A": bad}))
        assert server.requests == []
    assert CANARY not in str(caught.value)


@pytest.mark.usefixtures("mended_aioresponses")
async def test_reply_is_handed_on_whatever_its_status() -> None:
    """Status, headers in lower case and body come as they are; aioresponses stands in for the session."""
    with aioresponses() as mocked:
        mocked.post(
            "https://a.example.com/v1beta/models/m:generateContent?x=1", status=499, body="x", headers={"X-A": "b"}
        )
        async with aiohttp.ClientSession() as session:
            reply = await HttpTransport(session, base_url="https://a.example.com", key=CANARY).send(call())
    assert isinstance(reply, Reply)
    assert (reply.status, reply.headers["x-a"], reply.body) == (499, "b", b"x")
