"""The innermost transport: one HTTP request, one reply or one ``TransportFault``; it alone holds the key."""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import anyio

from pipeline.gemini.api import Call, Reply
from pipeline.gemini.exchange import Exchange, read_capped
from pipeline.gemini.origins import checked_base_url
from pipeline.gemini.time_limit import TimeLimits
from pipeline.gemini.wire import FaultKind, TransportFault
from pipeline.redaction import Redaction

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

CONNECT_SECONDS = 20.0
_PIECE_BYTES = 256 * 1024
_USER_AGENT = "gemini-media-pipeline"
_UNMISTAKABLE_CHARACTERS = 24
"""Keys of the service have 39 characters; a text so long is not written by chance."""


class HttpTransport:
    """Answers ``Transport``. Made by ``open_transport``.

    The key goes out in one header, to the configured origin only: a call that names a ``url`` of its own (an upload
    session) carries none, redirects are never followed, and a reply that echoes the key is stripped of it.
    """

    def __init__(
        self, session: "aiohttp.ClientSession", *, base_url: str, key: str | None, direct: Exchange | None = None
    ) -> None:
        """``direct`` makes the calls; ``session`` where there is none."""
        self._session = session
        self._direct = direct
        self._base_url = base_url
        self._key = key
        self._limits = TimeLimits()
        self._redaction = Redaction(key)
        self._answer_redaction = Redaction(key, shortest=_UNMISTAKABLE_CHARACTERS)

    def close(self) -> None:
        """No call is sent any more. The session is its maker's to close."""
        self._limits.close()

    async def send(self, call: Call) -> Reply:
        """Send once. Raises ``TransportFault``, or whatever the call's own body raised while it was read."""
        whole = _whole_body(call)
        stream = None if whole is not None else _BodyStream(call)
        try:
            return await self._exchange(call, stream or whole or b"")
        except TransportFault as fault:
            outcome: Exception = fault
        except Exception as error:
            kind = _fault_kind(error)
            if kind is None and not (stream and stream.failure):
                raise
            outcome = TransportFault(kind or FaultKind.RESET, _errno(error))
        # Raised out here, so that no foreign exception, which may hold the request's headers, hangs on it.
        raise (stream and stream.failure) or outcome

    async def _exchange(self, call: Call, body: "bytes | _BodyStream") -> Reply:
        url = call.url if call.url is not None else f"{self._base_url}/{call.path}"
        headers = self._headers(call)
        timeout = _timeout(call.total_seconds, call.idle_seconds)
        with self._limits.of(call.total_seconds):
            if self._direct is not None:
                return self._redacted(*await self._direct.send(call.method, url, headers, body, timeout))
            async with self._session.request(
                call.method, _encoded(url), headers=headers, data=body or None, timeout=timeout, allow_redirects=False
            ) as response:
                return self._redacted(response.status, response.headers, await read_capped(response.content))

    def _headers(self, call: Call) -> dict[str, str]:
        headers = dict(call.headers)
        if call.method != "GET":
            headers["Content-Length"] = str(call.body_bytes)
        if self._key is not None and call.url is None:
            headers["x-goog-api-key"] = self._key
        return headers

    def _redacted(self, status: int, headers: Mapping[str, str], body: bytes) -> Reply:
        """The reply without the key, should a server or proxy echo it; an answer is data, and altered only where
        no answer could hold the key by chance."""
        redaction = self._answer_redaction if 200 <= status < 300 else self._redaction
        if redaction.finds("\n".join(headers.values())):
            from multidict import CIMultiDict

            headers = CIMultiDict((name, redaction.text(value)) for name, value in headers.items())
        return Reply(status=status, headers=headers, body=redaction.data(body))


@asynccontextmanager
async def open_transport(
    *, base_url: str, key: str | None, connections: int, trust_env: bool = False
) -> AsyncIterator[HttpTransport]:
    """One session for the whole run: verified TLS of at least 1.2, no cookies, ``connections`` at once.

    Proxies and netrc of the environment are used only where ``trust_env`` asks for it.
    Raises ``UsageError`` for a base URL that the key must not be sent to.
    """
    base_url = checked_base_url(base_url)
    import aiohttp

    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ssl=_verifying() if base_url.startswith("https:") else True),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=trust_env,
        headers={"User-Agent": _USER_AGENT},
    )
    direct = None if trust_env else Exchange(session)
    transport = HttpTransport(session, base_url=base_url, key=key, direct=direct)
    try:
        yield transport
    finally:
        transport.close()
        with anyio.CancelScope(shield=True):
            await session.close()


def _verifying() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _encoded(url: str) -> "URL":
    """``url`` as it is: nothing in it is quoted again."""
    from yarl import URL

    return URL(url, encoded=True)


@lru_cache(maxsize=64)
def _timeout(total_seconds: float, idle_seconds: float) -> "aiohttp.ClientTimeout":
    """What ``TimeLimits`` doesn't see to. Silence is timed only where it may end a call before its total does."""
    import aiohttp

    return aiohttp.ClientTimeout(
        sock_connect=min(CONNECT_SECONDS, total_seconds),
        sock_read=idle_seconds if idle_seconds < total_seconds else None,
    )


def _whole_body(call: Call) -> bytes | None:
    """The body of a call that is small enough to be sent in one go."""
    body = call.body
    return body if isinstance(body, bytes) and len(body) <= _PIECE_BYTES else None


class _BodyStream:
    """A call's body in pieces; keeps what its source raised, which aiohttp would bury in an error of its own."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.failure: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes | bytearray]:
        """Raises when the source ends early: a server that waits for the rest would hold the call until its timeout."""
        body = self._call.body
        missing = self._call.body_bytes
        try:
            async for piece in _pieces(body) if isinstance(body, bytes) else body():
                missing -= len(piece)
                if missing < 0:  # the server would take the rest for the next request
                    break
                yield piece
            if missing:
                raise TransportFault(FaultKind.RESET, "the request's body is not as long as announced")  # noqa: TRY301
        except Exception as error:
            self.failure = error
            raise


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    view = memoryview(body)
    for start in range(0, len(body), _PIECE_BYTES):
        yield bytes(view[start : start + _PIECE_BYTES])


def _fault_kind(error: Exception) -> FaultKind | None:
    """What a foreign exception means, None where it is none of the network's."""
    import aiohttp

    table: tuple[tuple[type[Exception], FaultKind], ...] = (
        (aiohttp.ClientConnectorCertificateError, FaultKind.TLS_VERIFICATION),
        (aiohttp.ServerFingerprintMismatch, FaultKind.TLS_VERIFICATION),
        (aiohttp.ClientSSLError, FaultKind.TLS_HANDSHAKE),
        (aiohttp.ClientConnectorDNSError, FaultKind.DNS),
        (aiohttp.ClientConnectorError, FaultKind.CONNECT),
        (aiohttp.ClientHttpProxyError, FaultKind.CONNECT),
        (aiohttp.ConnectionTimeoutError, FaultKind.TIMEOUT_CONNECT),
        (aiohttp.SocketTimeoutError, FaultKind.TIMEOUT_IDLE),
        (TimeoutError, FaultKind.TIMEOUT_TOTAL),
        (aiohttp.ServerDisconnectedError, FaultKind.DISCONNECTED),
        (aiohttp.ClientPayloadError, FaultKind.PAYLOAD),
        (aiohttp.ClientResponseError, FaultKind.NOT_HTTP),
        (aiohttp.http.HttpProcessingError, FaultKind.NOT_HTTP),
        (aiohttp.InvalidURL, FaultKind.CONNECT),
        (aiohttp.ClientError, FaultKind.RESET),
        (OSError, FaultKind.RESET),
    )
    return next((kind for known, kind in table if isinstance(error, known)), None)


def _errno(error: Exception) -> str:
    """The operating system's words for a failure: they hold no header and no URL."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None or isinstance(error, ssl.SSLError):
        return ""
    import os

    return os.strerror(number) if number > 0 else ""
