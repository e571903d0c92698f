"""Calls over aiohttp's connections: the same on the wire as a session's, and no connection kept that must not be."""

import asyncio
import gzip
import shutil
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import aiohttp
import anyio
import pytest
from aioresponses import aioresponses

from pipeline.gemini.api import Call, Reply
from pipeline.gemini.exchange import Exchange
from pipeline.gemini.transport import HttpTransport
from pipeline.gemini.wire import FaultKind, TransportFault
from tests.gemini.conftest import CANARY, raw_server, says, transport_to
from tests.gemini.conversations import OK, Unread, always, call, conversations, raw_listener, streamed

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
    server = Unread()
    body = b"x" * 32 * 1024 * 1024  # more than the system takes in
    async with raw_listener(server.serve) as url, aiohttp.ClientSession() as session:
        exchange = Exchange(session)
        for _ in range(3):
            headers = {"Content-Length": str(len(body))}
            status, _, _ = await exchange.send("POST", f"{url}/x", headers, body, aiohttp.ClientTimeout())
            assert status == 413
    assert server.connections == 3


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
