"""CONTRACT of the Gemini API client: the verbs that rooms may use, and what each promises.

Retrying, pacing and journalling are wrappers around one verb, ``Transport.send``; no room retries HTTP by hand.
Errors that leave this folder are those of ``pipeline.errors``.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from enum import StrEnum
from typing import Protocol

import msgspec

from pipeline.records import Json, Media, RemoteFile


class Route(StrEnum):
    """What a call is for; classification, pacing and statistics go by it."""

    UPLOAD_START = "upload_start"
    UPLOAD_CHUNK = "upload_chunk"
    UPLOAD_QUERY = "upload_query"
    FILE_GET = "file_get"
    FILE_LIST = "file_list"
    FILE_DELETE = "file_delete"
    MODEL_GET = "model_get"
    GENERATE = "generate"


Body = bytes | Callable[[], AsyncIterator[bytes | bytearray]]
"""A whole body, or a function that starts streaming it anew each time the call is sent."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request. ``path`` is joined to the base URL; ``url`` is used instead for upload sessions, which
    carry no key. ``total_seconds`` bounds the whole call, ``idle_seconds`` the silence within it."""

    route: Route
    method: str
    path: str = ""
    url: str | None = None
    headers: Mapping[str, str] = {}
    body: Body = b""
    body_bytes: int = 0
    """Length of the body; sent as Content-Length."""
    total_seconds: float
    idle_seconds: float = 120.0
    subject: str = ""
    """What the call is about, for logs and intents: the item's key, or a file's name."""
    model: str = ""
    """Whom a generate call asks: quotas are per model."""
    tokens: int = 0
    """Estimated input tokens of a generate call."""
    attempt: int = 1
    """Which try of the call this is; counted by the retrying wrapper."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP response, wholly read (capped). Headers are found by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    value: Json = None
    """The JSON that ``body`` holds, None where it holds none; told of successes by the retrying wrapper."""
    attempts: int = 1
    """Calls it took, this one included; told by the retrying wrapper."""
    ambiguous: bool = False
    """Whether an earlier attempt may have been billed without an answer; told by the retrying wrapper."""


class Transport(Protocol):
    """Sends a call, gets a reply.

    The innermost one returns any reply whatever its status, and raises ``gemini.wire.TransportFault`` where
    there is none. Each wrapper keeps that contract except the outermost, whose docstring says what it raises.
    """

    async def send(self, call: Call) -> Reply:
        """Send once, or as often as this layer decides."""
        ...


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A generateContent request that has passed every limit check."""

    key: str
    model: str
    body: bytes
    tokens: int
    """Estimated input tokens."""


class GenerateResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A 200 answer to generateContent, decoded but not yet judged."""

    body: dict[str, Json]
    attempts: int
    """Calls it took, this one included."""
    ambiguous: bool
    """Whether an earlier attempt may have been billed without an answer."""


class ModelsApi(Protocol):
    """Generates. A batch or flex tier is another implementation behind the same await."""

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """One answer. Retries faults itself.

        Raises: ``ItemError`` (kind by ``gemini.table``; ``.failure.retryable`` tells), ``TryAgain``
        (file gone or not ACTIVE, a 400 without a reason), ``StopRun``, ``Draining`` when a drain began before a call
        was out or while it waited to be sent again.
        """
        ...

    async def check(self, model: str) -> None:
        """Free ``models.get``: raises ``StopForHuman`` for a bad key, an unknown model or a wrong base URL, and
        ``StopEarly`` where Google's own endpoint can't be reached. A gateway that doesn't know the call, and an
        answer that settles nothing (429, 5xx), are no errors."""
        ...


class FilesApi(Protocol):
    """The project's file storage."""

    async def upload(self, media: Media, *, progress: Callable[[int], None]) -> RemoteFile:
        """Upload and verify size, MIME type and SHA-256. Not idempotent: each call makes another file.
        ``progress`` is told of bytes that the service has taken (negative when it gave some back).

        Raises: ``ItemError`` (upload_failed, source_changed, file_too_large ...), ``StorageFull``, ``StopRun``,
        ``Draining``.
        """
        ...

    async def get(self, name: str) -> RemoteFile:
        """``files.get``, idempotent. Raises ``TryAgain`` (FILE_GONE) where the file doesn't exist, ``StopRun``;
        within a run faults are retried without end, for a file is not lost by a bad poll: who asks has a deadline.
        ``Draining`` ends the wait."""
        ...

    async def delete(self, name: str) -> None:
        """``files.delete``, idempotent: a file that is gone already is no error. Raises ``ItemError``, ``StopRun``."""
        ...

    def list(self) -> AsyncIterator[RemoteFile]:
        """``files.list``, page by page; for the ``files`` command only, nothing depends on it."""
        ...
