"""One request and its reply straight over aiohttp's connections, for half of what a session's request takes.

``ClientSession.request`` makes ready each time for what these calls never meet: redirects, cookies, logins, netrc,
middleware, tracing, a body of unknown kind. Connections, TLS, name lookup and the parser of replies are aiohttp's all
the same, and so is what goes over the wire, but for the order of the headers.
"""

import asyncio
import re
from collections.abc import AsyncIterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from pipeline.gemini.wire import FaultKind, TransportFault

if TYPE_CHECKING:
    import aiohttp

REPLY_BYTES_MAX = 16 * 1024 * 1024
"""Longest reply that is read, counted after decompression."""

Pieces = AsyncIterable[bytes | bytearray]
Body = bytes | Pieces
_Reply = tuple[int, Mapping[str, str], bytes]

_URL = re.compile(r"(https?://[^/?#]+)([^#]*)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_OCTETS = "application/octet-stream"


class Exchange:
    """Over the connections of ``session``. Knows no proxies: calls that may need one are the session's to make."""

    def __init__(self, session: "aiohttp.ClientSession") -> None:
        assert session.connector is not None  # noqa: S101 - the session is open
        self._session = session
        self._connector = session.connector
        self._origins: dict[str, _Origin] = {}

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body, timeout: "aiohttp.ClientTimeout"
    ) -> _Reply:
        """Status, headers and body (at most ``REPLY_BYTES_MAX``) of the reply to a request.

        ``headers`` tell the body's length. ``timeout`` bounds the connecting and the silence after the request
        (``sock_connect``, ``sock_read``). Raises aiohttp's errors as a session does, ``HttpProcessingError`` where the
        reply is no HTTP, ``TransportFault`` where it is too long, and what a body in pieces raised. A call that is
        cancelled, or ends in an error, takes its connection with it.
        """
        origin, target = self._found(url)
        request = _head(method, target, {**origin.headers, **headers})
        try:
            connection = await self._connector.connect(origin.request, [], timeout)
        except TimeoutError as error:
            from aiohttp import ConnectionTimeoutError

            raise ConnectionTimeoutError from error
        try:
            if isinstance(body, bytes):
                reply = await _exchange(connection, request + body, timeout)
                is_sent = True
            else:
                reply, is_sent = await _exchange_in_pieces(connection, request, body, timeout)
        except BaseException:
            _cut(connection)
            raise
        if not is_sent or _has_unsent(connection):  # the server answered before it had read all
            _cut(connection)
        else:
            connection.release()
        return reply

    def _found(self, url: str) -> tuple["_Origin", str]:
        """Whom ``url`` names, and what of theirs. Raises ``InvalidURL``."""
        match = _URL.match(url)
        if match is None:
            from aiohttp import InvalidURL

            raise InvalidURL(url)
        place, target = match.groups()
        origin = self._origins.get(place)
        if origin is None:
            origin = self._origins[place] = _origin(self._session, place)
        return origin, target if target.startswith("/") else f"/{target}"


class _Origin(NamedTuple):
    request: "aiohttp.ClientRequest"
    """Never sent: the connector asks it where to connect, and how."""
    headers: dict[str, str]
    """What every request there has."""


def _origin(session: "aiohttp.ClientSession", place: str) -> _Origin:
    from aiohttp import ClientRequest
    from yarl import URL

    loop = asyncio.get_running_loop()
    request = ClientRequest("GET", URL(place, encoded=True), headers=session.headers, loop=loop, session=session)
    return _Origin(request, dict(request.headers))


async def _exchange(
    connection: "aiohttp.connector.Connection", request: bytes, timeout: "aiohttp.ClientTimeout"
) -> _Reply:
    protocol, transport = _ends(connection)
    protocol.set_response_params(read_until_eof=True, read_timeout=timeout.sock_read)
    transport.write(request)
    protocol.start_timeout()
    return await _read(protocol)


async def _exchange_in_pieces(
    connection: "aiohttp.connector.Connection", head: bytes, body: Pieces, timeout: "aiohttp.ClientTimeout"
) -> tuple[_Reply, bool]:
    """The reply, which may come before all of the body was sent, and whether it was."""
    protocol, transport = _ends(connection)
    protocol.set_response_params(read_until_eof=True, read_timeout=timeout.sock_read)
    transport.write(head)
    sending = asyncio.ensure_future(_send_pieces(protocol, transport, body))
    try:
        reply = await _read(protocol)
    finally:
        if not sending.done():
            sending.cancel()
            await asyncio.wait([sending])
    protocol.read_timeout = None  # the last piece may have set its timer after the reply had come
    protocol.start_timeout()
    return reply, not sending.cancelled() and sending.result()


async def _send_pieces(
    protocol: "aiohttp.client_proto.ResponseHandler", transport: asyncio.WriteTransport, body: Pieces
) -> bool:
    """Whether all were sent; what goes wrong is told to whoever waits for the reply, and breaks the connection."""
    try:
        async for piece in body:
            if transport.is_closing():
                raise ConnectionResetError  # noqa: TRY301
            transport.write(piece)
            await protocol._drain_helper()  # noqa: SLF001 - as aiohttp's own writers do
    except BaseException as error:
        if isinstance(error, Exception) and protocol.exception() is None:  # else the connection has told why it broke
            protocol.set_exception(error)
        transport.abort()
        if not isinstance(error, Exception):
            raise
        return False
    protocol.start_timeout()
    return True


def _ends(
    connection: "aiohttp.connector.Connection",
) -> tuple["aiohttp.client_proto.ResponseHandler", asyncio.WriteTransport]:
    protocol, transport = connection.protocol, connection.transport
    assert protocol is not None  # noqa: S101 - it was made, or found alive, just now
    assert transport is not None  # noqa: S101 - so was this
    return protocol, transport


async def _read(protocol: "aiohttp.client_proto.ResponseHandler") -> _Reply:
    message, content = await protocol.read()
    while message.code < 200:
        message, content = await protocol.read()
    return message.code, message.headers, await read_capped(content)


def _head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """The request up to its body. Raises ``ValueError`` where something in it would begin a line of its own."""
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()]]
    if method == "POST" and "Content-Type" not in headers:
        lines.append(f"Content-Type: {_OCTETS}")
    if " " in target or not _is_plain("".join(lines)):
        raise ValueError("a request's head holds control characters")
    lines.append("\r\n")
    return "\r\n".join(lines).encode()


def _is_plain(text: str) -> bool:
    return text.isprintable() or not _CONTROL.search(text)  # the first is quicker, and nearly always true


def _has_unsent(connection: "aiohttp.connector.Connection") -> bool:
    transport = connection.transport
    return transport is not None and transport.get_write_buffer_size() > 0


def _cut(connection: "aiohttp.connector.Connection") -> None:
    """Close, also where the server takes no more and a mere close would wait for it."""
    if connection.transport is not None:
        connection.transport.abort()
    connection.close()


async def read_capped(content: "aiohttp.StreamReader") -> bytes:
    """All of a reply's body. Raises ``TransportFault`` where it is longer than ``REPLY_BYTES_MAX``."""
    parts: list[bytes] = []
    size = 0
    while not content.at_eof():
        part = content.read_nowait() if content.is_eof() else await content.readany()
        size += len(part)
        if size > REPLY_BYTES_MAX:
            raise TransportFault(FaultKind.BODY_TOO_LARGE, f"more than {REPLY_BYTES_MAX} bytes")
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
