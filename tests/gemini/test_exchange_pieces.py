"""Bodies in pieces over aiohttp's connections: all of one has left, or its connection serves nobody else."""

import asyncio
from collections.abc import AsyncIterator

import anyio
import pytest
from msgspec import structs

from pipeline.gemini.wire import FaultKind, TransportFault
from tests.gemini.conftest import transport_to
from tests.gemini.conversations import OK, Unread, always, call, conversations, raw_listener, streamed


async def test_one_connection_serves_bodies_in_pieces() -> None:
    """All of a body has left before the next request does."""
    async with conversations(always) as server, transport_to(server.url) as transport:
        for pieces in (1, 7, 3):
            assert (await transport.send(streamed(pieces))).body == b"{}"
        assert server.connections == 1
    assert [len(request.partition(b"\r\n\r\n")[2]) for request in server.requests] == [1_000_000, 7_000_000, 3_000_000]


async def test_an_answer_before_all_pieces_were_sent_is_taken() -> None:
    """The rest is not sent, and its connection serves nobody else."""
    server = Unread()
    async with raw_listener(server.serve) as url, transport_to(url) as transport:
        for number in (1, 2, 3):
            assert (await transport.send(streamed(40))).status == 413
            assert server.connections == number


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
