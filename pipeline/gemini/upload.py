"""One medium's way into the File API: start, chunks, queries after a cut, fresh starts; bounded by lack of progress."""

import random
from collections.abc import Callable

import anyio
import msgspec

from pipeline.drain import Drain
from pipeline.errors import Failure, ItemError, StopForHuman
from pipeline.gemini.api import Call, Reply, Route, Transport
from pipeline.gemini.health import Patience
from pipeline.gemini.origins import may_upload_to, origin
from pipeline.gemini.retrying import SessionLost, failure_of
from pipeline.gemini.source import Source
from pipeline.gemini.upload_plan import (
    Chunk,
    Standing,
    chunk_bytes,
    chunk_seconds,
    display_name,
    next_chunk,
    read_standing,
)
from pipeline.records import Media, RemoteFile
from pipeline.spec import UploadSpec

START_SECONDS = 60.0
_QUERIES_MAX = 3
"""So many queries that find no progress, and the session is given up (googleapis GAX ResumableUpload)."""

_IDENTITY = {"Accept-Encoding": "identity"}


class Upload:
    """Of one medium; made for each, used once.

    Tries are counted while the server takes nothing more: ``UploadSpec.attempts`` of them in a row, over all sessions,
    end the upload. In an outage they cost nothing (``SessionLost.charged``).
    """

    def __init__(
        self,
        transport: Transport,
        source: Source,
        media: Media,
        *,
        base_url: str,
        api_version: str,
        spec: UploadSpec,
        patience: Patience,
        drain: Drain,
        progress: Callable[[int], None],
    ) -> None:
        self._transport = transport
        self._source = source
        self._media = media
        self._base_url = base_url
        self._path = f"upload/{api_version}/files"
        self._spec = spec
        self._patience = patience
        self._drain = drain
        self._progress = progress
        self._taken = 0
        self._furthest = 0
        self._fruitless = 0
        self._by_rule: dict[str, int] = {}

    async def run(self) -> RemoteFile:
        """The finished file, unverified. Raises as ``FilesApi.upload`` does."""
        while True:
            url, unit_bytes = await self._start()
            if file := await self._transfer(url, unit_bytes):
                return file
            self._take(0)

    def undo(self) -> None:
        """The file was deleted again: what was taken is taken back."""
        self._take(0)

    async def _start(self) -> tuple[str, int]:
        body = msgspec.json.encode({"file": {"displayName": display_name(self._media)}})
        reply = await self._transport.send(
            Call(
                route=Route.UPLOAD_START,
                method="POST",
                path=self._path,
                headers={
                    **_IDENTITY,
                    "Content-Type": "application/json",
                    "X-Goog-Upload-Protocol": "resumable",
                    "X-Goog-Upload-Command": "start",
                    "X-Goog-Upload-Header-Content-Length": str(self._source.size_bytes),
                    "X-Goog-Upload-Header-Content-Type": self._media.mime_type,
                },
                body=body,
                body_bytes=len(body),
                total_seconds=START_SECONDS,
                subject=self._media.path,
            )
        )
        url = reply.headers["x-goog-upload-url"]
        if not may_upload_to(url, self._base_url):
            where = origin(url) or "nowhere that can be read"
            stop = StopForHuman(f"the service sends uploads to a foreign host, {where}; nothing was sent there")
            self._drain.begin(stop.exit_code, str(stop))
            raise stop
        return url, chunk_bytes(reply.headers.get("x-goog-upload-chunk-granularity"))

    async def _transfer(self, url: str, unit_bytes: int) -> RemoteFile | None:
        """Send what the session lacks; None where it is dead and another must begin."""
        offset = stalled = 0
        while True:
            chunk = next_chunk(offset, self._source.size_bytes, unit_bytes)
            try:
                standing = read_standing(await self._send_chunk(url, chunk))
                reached = standing.received if standing.received is not None else offset + chunk.length
            except SessionLost as lost:
                await self._stumble(lost)
                asked = None if lost.dead else await self._query(url)
                if asked is None:
                    return None
                standing, reached = asked, asked.received if asked.received is not None else -1
            if standing.status == "final":
                if standing.file:
                    self._take(self._source.size_bytes)
                else:
                    await self._end_fruitless("the upload ended without telling of a file")
                return standing.file
            if standing.status != "active" or not offset <= reached <= self._source.size_bytes:
                await self._end_fruitless(f"the upload's offset went from {offset} to {reached}")
                return None
            stalled = 0 if reached > offset else stalled + 1
            if stalled >= _QUERIES_MAX:
                await self._end_fruitless(f"the upload's session takes nothing more at {offset}")
                return None
            offset = reached
            self._take(offset)

    async def _send_chunk(self, url: str, chunk: Chunk) -> Reply:
        if self._source.whole is None:
            self._source.check()
        headers = {**_IDENTITY, "X-Goog-Upload-Command": chunk.command, "X-Goog-Upload-Offset": str(chunk.offset)}
        reply = await self._transport.send(
            Call(
                route=Route.UPLOAD_CHUNK,
                method="POST",
                url=url,
                headers=headers,
                body=self._source.body(chunk.offset, chunk.length) if chunk.length else b"",
                body_bytes=chunk.length,
                total_seconds=chunk_seconds(chunk.length, self._spec.timeout_seconds),
                subject=self._media.path,
            )
        )
        if self._source.whole is None:
            self._source.check()
        return reply

    async def _query(self, url: str) -> Standing | None:
        """Where the session stands, None where it is dead."""
        try:
            reply = await self._transport.send(
                Call(
                    route=Route.UPLOAD_QUERY,
                    method="POST",
                    url=url,
                    headers={**_IDENTITY, "X-Goog-Upload-Command": "query"},
                    total_seconds=START_SECONDS,
                    subject=self._media.path,
                )
            )
        except SessionLost as lost:
            await self._stumble(lost)
            return None
        return read_standing(reply)

    async def _stumble(self, lost: SessionLost) -> None:
        """Count a try without progress, and wait. Raises ``ItemError`` where it was the last."""
        verdict = lost.verdict
        self._by_rule[verdict.rule] = self._by_rule.get(verdict.rule, 0) + 1
        if verdict.tries is not None and self._by_rule[verdict.rule] >= verdict.tries:
            raise ItemError(failure_of(verdict.signal.route, verdict))
        if lost.charged:
            self._fruitless += 1
            if self._fruitless >= self._spec.attempts:
                raise ItemError(failure_of(verdict.signal.route, verdict))
        await self._pause()

    async def _end_fruitless(self, message: str) -> None:
        """The session ended without a file, by no fault of the network."""
        self._fruitless += 1
        if self._fruitless >= self._spec.attempts:
            raise ItemError(Failure(stage="upload", kind="upload_failed", message=message, retryable=True))
        await self._pause()

    async def _pause(self) -> None:
        with self._drain.interruptible():
            await anyio.sleep(random.uniform(0, self._patience.backoff_cap(self._fruitless)))  # noqa: S311  # jitter

    def _take(self, offset: int) -> None:
        if offset != self._taken:
            self._progress(offset - self._taken)
            self._taken = offset
        if offset > self._furthest:
            self._furthest = offset
            self._fruitless = 0
