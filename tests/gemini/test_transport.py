"""The innermost transport against servers that misbehave on the socket."""

import gzip
import logging
import re
import shutil
import ssl
import subprocess
import traceback
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from pipeline.errors import Failure, ItemError, UsageError
from pipeline.gemini.api import Call, Route
from pipeline.gemini.transport import open_transport
from pipeline.gemini.wire import FaultKind, TransportFault
from tests.gemini.conftest import CANARY, Handler, raw_server, says, transport_to


@pytest.fixture(autouse=True, params=["direct", "session"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test goes both ways: over connections, and over a session, as where proxies of the environment count."""
    if request.param == "session":
        monkeypatch.setattr("pipeline.gemini.transport.Exchange", lambda _session: None)


OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n"


def post(body: bytes = b"{}", *, total_seconds: float = 5.0, **given: object) -> Call:
    return Call(
        route=Route.GENERATE,
        method="POST",
        path="v1beta/models/m:generateContent",
        body=body,
        body_bytes=len(body),
        total_seconds=total_seconds,
        **given,
    )


async def fault_of(handler: Handler, call: Call | None = None) -> TransportFault:
    """The fault that one call to a server answering by ``handler`` ends with."""
    async with raw_server(handler) as server, transport_to(server.url) as transport:
        with pytest.raises(TransportFault) as caught:
            await transport.send(call or post())
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert CANARY not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    return caught.value


async def test_key_goes_to_the_base_url_in_one_header_only() -> None:
    """The wire shows the key once, in x-goog-api-key; an upload session's URL gets none."""
    async with raw_server(says(OK + b"Content-Length: 2\r\n\r\n{}")) as server, transport_to(server.url) as transport:
        await transport.send(post())
        await transport.send(
            Call(route=Route.UPLOAD_CHUNK, method="POST", url=f"{server.url}/u?upload_id=1", total_seconds=5)
        )
    first, second = server.requests
    assert first.count(CANARY.encode()) == 1
    assert f"x-goog-api-key: {CANARY}\r\n".encode() in first
    assert CANARY.encode() not in second
    assert b"content-length: 0\r\n" in second.lower()


async def test_redirect_is_not_followed_and_foreign_host_gets_nothing() -> None:
    """A 307 comes back as a reply; the host that it names is never connected to."""
    async with raw_server(says(OK + b"Content-Length: 2\r\n\r\n{}")) as foreign:
        moved = f"HTTP/1.1 307 x\r\nLocation: {foreign.url}/steal\r\nContent-Length: 0\r\n\r\n".encode()
        async with raw_server(says(moved)) as server, transport_to(server.url) as transport:
            reply = await transport.send(post())
    assert reply.status == 307
    assert foreign.requests == []


async def test_echoed_key_is_taken_out_of_the_reply() -> None:
    """A proxy that puts the request into its error page must not bring the key into our logs."""
    page = f"<pre>x-goog-api-key: {CANARY}</pre>".encode()
    head = f"HTTP/1.1 403 x\r\nX-Echo: {CANARY}\r\nContent-Length: {len(page)}\r\n\r\n".encode()
    async with raw_server(says(head + page)) as server, transport_to(server.url) as transport:
        reply = await transport.send(post())
    assert CANARY not in str(reply)


async def test_slow_loris_is_ended_by_the_total_deadline() -> None:
    """One byte every 0.05 s never trips the idle deadline; the total one ends it."""

    async def drip(_request: bytes, stream: anyio.abc.SocketStream) -> None:
        await stream.send(OK + b"Content-Length: 100000\r\n\r\n")
        while True:
            await stream.send(b" ")
            await anyio.sleep(0.05)

    with anyio.fail_after(4):
        fault = await fault_of(drip, post(total_seconds=0.5, idle_seconds=0.3))
    assert fault.kind is FaultKind.TIMEOUT_TOTAL
    assert fault.body_sent


async def test_silence_is_ended_by_the_idle_deadline() -> None:
    """A server that takes the request and says nothing is left after idle_seconds."""

    async def silent(_request: bytes, _stream: anyio.abc.SocketStream) -> None:
        await anyio.sleep_forever()

    fault = await fault_of(silent, post(total_seconds=5, idle_seconds=0.2))
    assert fault.kind is FaultKind.TIMEOUT_IDLE


@pytest.mark.parametrize(
    "answer",
    [OK + b'Content-Length: 99\r\n\r\n{"candidates":', OK + b'Transfer-Encoding: chunked\r\n\r\nff\r\n{"candidates":'],
)
async def test_body_cut_short_of_its_length_is_a_fault(answer: bytes) -> None:
    """With a length or chunks the cut is seen in the transport, and the call may have been billed."""
    fault = await fault_of(says(answer))
    assert (fault.kind, fault.body_sent) == (FaultKind.PAYLOAD, True)


async def test_body_cut_without_a_length_is_a_reply_that_is_no_json() -> None:
    """Delimited by the connection's end a cut is silent: the JSON decoder must catch it."""
    answer = OK + b'Connection: close\r\n\r\n{"candidates":'
    async with raw_server(says(answer)) as server, transport_to(server.url) as transport:
        assert (await transport.send(post())).body == b'{"candidates":'


async def test_gzip_bomb_is_cut_at_the_cap() -> None:
    """A quarter gigabyte in a small reply costs the cap, not itself."""
    bomb = gzip.compress(b" " * (256 * 1024 * 1024), 9)
    tracemalloc.start()
    try:
        fault = await fault_of(
            says(OK + f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode() + bomb),
            post(total_seconds=60),
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert fault.kind is FaultKind.BODY_TOO_LARGE
    assert peak < 64 * 1024 * 1024


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9\r\n"])
async def test_no_http_at_all(answer: bytes) -> None:
    """A server that closes at once, or speaks something else, gives a fault after which we may have been billed."""
    fault = await fault_of(says(answer))
    assert fault.kind in {FaultKind.DISCONNECTED, FaultKind.NOT_HTTP, FaultKind.RESET}
    assert fault.body_sent


@pytest.mark.parametrize("body", [b"<html>Bad Gateway</html>", b""])
async def test_html_and_empty_bodies_are_plain_replies(body: bytes) -> None:
    """What a proxy says is for the table to judge."""
    answer = f"HTTP/1.1 502 x\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    async with raw_server(says(answer)) as server, transport_to(server.url) as transport:
        reply = await transport.send(post())
    assert (reply.status, reply.body) == (502, body)


async def test_refused_connection_was_never_sent() -> None:
    """Nobody listens: no byte left, so nothing can have been billed."""
    async with raw_server(says(b"")) as server:
        url = server.url
    async with transport_to(url) as transport:
        with pytest.raises(TransportFault) as caught:
            await transport.send(post())
    assert (caught.value.kind, caught.value.body_sent) == (FaultKind.CONNECT, False)


async def test_unverified_certificate_is_told_apart_and_nothing_is_sent(tmp_path: Path) -> None:
    """A self-signed server is a fault of its own kind, and the key stays here."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout k.pem -out c.pem"
    subprocess.run(make.split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    got: list[bytes] = []

    async def serve(reader: object, writer: object) -> None:
        got.append(await reader.read(1000))
        writer.close()

    import asyncio

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server, transport_to(f"https://localhost:{port}".replace("localhost", "127.0.0.1")) as transport:
        with pytest.raises(TransportFault) as caught:
            await transport.send(post())
    assert caught.value.kind is FaultKind.TLS_VERIFICATION
    assert b"".join(got) == b""


async def test_stream_that_ends_early_aborts_at_once() -> None:
    """A body shorter than announced would leave the server waiting: the call ends now, not at its deadline."""

    async def short() -> AsyncIterator[bytes]:
        yield b"x" * 1000

    call = Call(route=Route.UPLOAD_CHUNK, method="POST", path="u", body=short, body_bytes=100_000, total_seconds=60)
    async with raw_server(says(OK + b"Content-Length: 0\r\n\r\n")) as server, transport_to(server.url) as transport:
        with anyio.fail_after(3), pytest.raises(TransportFault):
            await transport.send(call)


async def test_what_the_body_raises_comes_out_as_it_is() -> None:
    """A source that has changed says so itself, not by way of a network fault."""
    changed = ItemError(Failure(stage="upload", kind="source_changed", message="changed"))

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise changed

    call = Call(route=Route.UPLOAD_CHUNK, method="POST", path="u", body=broken, body_bytes=100_000, total_seconds=60)
    async with raw_server(says(OK + b"Content-Length: 0\r\n\r\n")) as server, transport_to(server.url) as transport:
        with anyio.fail_after(3), pytest.raises(ItemError) as caught:
            await transport.send(call)
    assert caught.value is changed


async def test_large_body_has_its_exact_length() -> None:
    """Five megabytes travel in pieces under one Content-Length, unaltered."""
    body = bytes(range(256)) * 20_000
    async with raw_server(says(OK + b"Content-Length: 2\r\n\r\n{}")) as server, transport_to(server.url) as transport:
        await transport.send(post(body, total_seconds=30))
    head, _, sent = server.requests[0].partition(b"\r\n\r\n")
    assert re.search(rb"content-length: (\d+)", head.lower())[1] == str(len(body)).encode()
    assert sent == body


async def test_key_is_in_no_repr_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the transport nor a debug log of a whole exchange shows the key."""
    caplog.set_level(logging.DEBUG)
    async with raw_server(says(OK + b"Content-Length: 2\r\n\r\n{}")) as server, transport_to(server.url) as transport:
        await transport.send(post())
        assert CANARY not in repr(transport)
    assert CANARY not in caplog.text


async def test_plain_http_to_another_machine_is_refused() -> None:
    """No session is even opened for a base URL that would show the key to the network."""
    with pytest.raises(UsageError):
        async with open_transport(base_url="http://10.0.0.1", key=CANARY, connections=1):
            pass
