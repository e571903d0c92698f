"""Resumable upload sessions; changes when the upload protocol does.

Headers, statuses and texts: ai.google.dev/gemini-api/docs/files, home-assistant/core#140904 (granularity), and the
protocol family as Google documents it for Photos ("Resumable uploads").
"""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

from pipeline.emulator import api_errors
from pipeline.emulator.files import StoredFile
from pipeline.emulator.reply import Refusal
from pipeline.limits import UPLOAD_GRANULARITY_BYTES

DURABLE_BYTES = 256 * 1024
"""A broken chunk keeps what was received, down to a multiple of this."""

STATUS = "X-Goog-Upload-Status"
SIZE_RECEIVED = "X-Goog-Upload-Size-Received"


@dataclass(slots=True, kw_only=True)
class Session:
    """One upload from its start to its file."""

    upload_id: str
    project: str
    identity: str
    identifier: str
    display_name: str
    mime_type: str
    declared_bytes: int | None
    keep_bytes: int
    """Up to so many bytes are kept, for the answers to be decoded from."""
    status: Literal["active", "final", "cancelled"] = "active"
    received_bytes: int = 0
    file: StoredFile | None = None
    kept: bytearray | None = field(default_factory=bytearray)
    epoch: int = 0
    _hash: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    _pending: bytearray = field(default_factory=bytearray)

    @property
    def sha256(self) -> str:
        """Of the bytes received so far, in hexadecimal."""
        return self._hash.hexdigest()

    def headers(self) -> dict[str, str]:
        """What every answer of the protocol carries."""
        return {STATUS: self.status, SIZE_RECEIVED: str(self.received_bytes)}

    def require_active(self) -> None:
        """A session that ended takes no more bytes."""
        if self.status != "active":
            raise Refusal(api_errors.plain_text(400, "Upload has already been terminated.", self.headers()))

    def check_chunk(self, offset: str, length_bytes: int | None, *, final: bool) -> None:
        """Refuse a chunk at the wrong place or of the wrong size."""
        self.require_active()
        if length_bytes is None:
            raise Refusal(api_errors.plain_text(411, "Content-Length is required.", self.headers()))
        if not offset.isdigit() or int(offset) != self.received_bytes:
            text = f"Upload offset {offset or 'missing'} does not match the {self.received_bytes} bytes received."
            raise Refusal(api_errors.plain_text(400, text, self.headers()))
        if not final and (length_bytes % UPLOAD_GRANULARITY_BYTES or not length_bytes):
            text = (
                f"The client sent {length_bytes} bytes, which is not a multiple of the {UPLOAD_GRANULARITY_BYTES} byte "
                "chunk granularity."
            )
            raise Refusal(api_errors.plain_text(400, text, self.headers()))

    async def take(self, blocks: AsyncIterator[bytes], *, durable: bool = True) -> None:
        """Read one chunk; what a broken connection leaves stays, down to the durable granule, or not at all."""
        self.epoch += 1
        epoch, before_hash, before_bytes = self.epoch, self._hash.copy(), self.received_bytes
        self._pending.clear()
        try:
            async for block in blocks:
                self._require_newest(epoch)
                self._pending += block
                granules_bytes = len(self._pending) - len(self._pending) % DURABLE_BYTES
                self._store(granules_bytes)
        except BaseException:
            if self.epoch == epoch:
                self._pending.clear()
                if not durable:
                    self._hash, self.received_bytes = before_hash, before_bytes
                    self._keep_only(before_bytes)
            raise
        self._store(len(self._pending))

    def _require_newest(self, epoch: int) -> None:
        """Another request may have taken over: a client can give a connection up before the server sees it end."""
        if self.epoch != epoch:
            raise Refusal(api_errors.plain_text(400, "Superseded by a newer request.", self.headers()))

    def _store(self, count: int) -> None:
        if not count:
            return
        durable = bytes(self._pending[:count])
        del self._pending[:count]
        self._hash.update(durable)
        self.received_bytes += count
        if self.kept is not None:
            self.kept += durable
            self._keep_only(self.received_bytes)

    def _keep_only(self, count: int) -> None:
        if self.kept is None:
            return
        del self.kept[count:]
        if len(self.kept) > self.keep_bytes:
            self.kept = None

    def check_size(self) -> None:
        """The bytes are as many as the start announced."""
        if self.declared_bytes is not None and self.declared_bytes != self.received_bytes:
            text = f"Received {self.received_bytes} bytes where {self.declared_bytes} were announced."
            raise Refusal(api_errors.plain_text(400, text, self.headers()))


class Sessions:
    """Every upload session."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self.open = 0
        self.most_open = 0

    def add(self, session: Session) -> None:
        """A new session was started."""
        self._sessions[session.upload_id] = session
        self.open += 1
        self.most_open = max(self.most_open, self.open)

    def get(self, upload_id: str) -> Session:
        """The session; a dead one is a 404 with no body (googleapis/python-genai#589)."""
        session = self._sessions.get(upload_id)
        if session is None:
            raise Refusal(api_errors.empty(404))
        return session

    def end(self, session: Session, status: Literal["final", "cancelled"]) -> None:
        """The session takes no more bytes; a query still finds it."""
        session.status = status
        session.kept = None
        self.open -= 1
