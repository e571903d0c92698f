"""The nouns that travel from room to room; frozen, and built only where their docstring says."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from pipeline.errors import Failure
from pipeline.limits import IMAGE_TYPES, REUSE_HORIZON_SENT_SECONDS, VIDEO_TYPES

Json = Any
"""A decoded JSON value."""


class FileIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What ``stat`` says of a file; the same identity means the same bytes (see ``media.identify``)."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class Media(msgspec.Struct, frozen=True, kw_only=True):
    """One image or video of an item, identified by its bytes in the manifest room.

    ``path`` is what the result line shows (relative to SOURCE, with ``/``); ``location`` is the path to open.
    ``start_seconds``, ``end_seconds`` and ``fps`` cut and sample a video on the server.
    """

    path: str
    location: str
    mime_type: str
    size_bytes: int
    sha256: str
    identity: FileIdentity
    settled: bool = False
    """Whether ``identity`` vouches for the bytes: they had lain unchanged for a while when they were hashed."""
    start_seconds: float | None = None
    end_seconds: float | None = None
    fps: float | None = None

    @property
    def content(self) -> "Content":
        """What it is to the File API."""
        return Content(self.sha256, self.mime_type)

    @property
    def is_image(self) -> bool:
        """Whether the API takes it as an image."""
        return self.mime_type in IMAGE_TYPES

    @property
    def is_video(self) -> bool:
        """Whether the API takes it as a video."""
        return self.mime_type in VIDEO_TYPES


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of work: what is sent in one request and answered by one result line.

    Everything is resolved: the prompt is rendered, run and row settings are merged, media are identified.
    ``labels`` is empty, or one text for each medium that precedes it in the request.
    ``generation`` is the API's generationConfig and ``safety`` category to threshold, as sent.
    """

    key: str
    position: int
    line: int | None
    model: str
    media: tuple[Media, ...]
    prompt: str
    prompt_sha256: str
    fingerprint: str
    labels: tuple[str, ...] = ()
    system: str | None = None
    generation: dict[str, Json] = {}
    safety: dict[str, str] = {}
    schema: dict[str, Json] | None = None
    template: str | None = None
    ambiguous_runs: int = 0
    """Runs before this one that lost it to a fault after which it may have been billed."""
    again: tuple[str, ...] = ()
    """Why earlier passes of this run sent it round once more (``errors.Again``)."""
    attempts_before: int = 0
    """Generate calls of earlier passes of this run."""
    ambiguous_before: bool = False
    """Whether one of those may have been billed unanswered."""


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A row or file that can't become an Item; as much of it as is known."""

    key: str
    position: int
    line: int | None
    failure: Failure
    media: tuple[Media, ...] = ()
    paths: tuple[str, ...] = ()
    """Media paths as given, for media that could not be identified."""
    model: str | None = None
    template: str | None = None
    prompt_sha256: str | None = None
    fingerprint: str | None = None


class FileState(StrEnum):
    """``File.state`` (api/files)."""

    STATE_UNSPECIFIED = "STATE_UNSPECIFIED"
    PROCESSING = "PROCESSING"
    ACTIVE = "ACTIVE"
    FAILED = "FAILED"


class RemoteFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that lies in the project's File API storage. ``sha256`` is lower-case hex, None where not told."""

    name: str
    uri: str
    mime_type: str
    size_bytes: int
    state: FileState
    sha256: str | None = None
    expires_at: datetime | None = None
    created_at: datetime | None = None
    display_name: str | None = None
    error_code: int | None = None
    error_message: str | None = None

    def usable_at(self, now: datetime, horizon_seconds: float) -> bool:
        """Whether the file will still live ``horizon_seconds`` after ``now``; the only expiry test there is."""
        return self.expires_at is None or now + timedelta(seconds=horizon_seconds) < self.expires_at


class Content(NamedTuple):
    """What makes two media the same file to the File API."""

    sha256: str
    mime_type: str


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """How one medium travels: ``file`` is None for inline."""

    media: Media
    file: RemoteFile | None = None


class Uploaded(msgspec.Struct, frozen=True, kw_only=True):
    """An item whose bytes are where they need to be, some perhaps still PROCESSING."""

    item: Item
    parts: tuple[Placed, ...]
    started_at: datetime

    @property
    def is_active(self) -> bool:
        """Whether every remote file is ACTIVE."""
        return all(p.file is None or p.file.state is FileState.ACTIVE for p in self.parts)


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """An item that can be sent: every remote file is ACTIVE. Built only by ``Ready.of``."""

    item: Item
    parts: tuple[Placed, ...]
    started_at: datetime

    @classmethod
    def of(cls, uploaded: Uploaded) -> "Ready":
        """Take ``uploaded`` on. Raises ``ValueError`` unless each of its files is ACTIVE."""
        if not uploaded.is_active:
            raise ValueError(f"{uploaded.item.key}: not all its files are ACTIVE")
        return cls(item=uploaded.item, parts=uploaded.parts, started_at=uploaded.started_at)

    def usable_at(self, now: datetime) -> bool:
        """Whether no file expires too soon to be named in a request sent ``now``."""
        return all(p.file is None or p.file.usable_at(now, REUSE_HORIZON_SENT_SECONDS) for p in self.parts)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one or several answers; ``prompt_tokens`` includes cached ones (api/generate-content)."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    thoughts_tokens: int = 0
    cached_tokens: int = 0
    total_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            thoughts_tokens=self.thoughts_tokens + other.thoughts_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
        )


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the model said. ``usage`` sums every paid answer to the item, also those asked for again."""

    text: str | None = None
    data: Json = None
    model_version: str | None = None
    response_id: str | None = None
    finish_reason: str | None = None
    safety_ratings: tuple[dict[str, Json], ...] = ()
    usage: Usage = Usage()


class Status(StrEnum):
    """``status`` of a result line."""

    SUCCEEDED = "succeeded"
    BLOCKED = "blocked"
    FAILED = "failed"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an item ended. ``failure`` is None exactly where ``status`` is SUCCEEDED.

    ``attempts`` counts generate calls sent; ``ambiguous`` tells that one of them may have been billed unanswered.
    ``parts`` is how the media travelled, empty where that was not decided.
    """

    subject: Item | Rejected
    status: Status
    attempts: int = 0
    ambiguous: bool = False
    answer: Answer | None = None
    failure: Failure | None = None
    parts: tuple[Placed, ...] = ()
    started_at: datetime
    finished_at: datetime


class MediaRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``media`` in a result line."""

    path: str
    mime_type: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    via: str | None = None


class ResultLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``results.jsonl``; fields may be added here, none is ever renamed."""

    key: str
    status: Status
    text: str | None = None
    data: Json = None
    media: tuple[MediaRecord, ...] = ()
    model: str | None = None
    model_version: str | None = None
    response_id: str | None = None
    finish_reason: str | None = None
    safety_ratings: tuple[dict[str, Json], ...] = ()
    usage: Usage = Usage()
    cost_usd: float | None = None
    attempts: int = 0
    template: str | None = None
    prompt_sha256: str | None = None
    fingerprint: str | None = None
    backend: str
    part: str | None = None
    line: int | None = None
    started_at: str
    finished_at: str
    error: Failure | None = None
    ambiguous_runs: int = 0
    """Runs that have lost this item, as it is now, to a fault after which it may have been billed."""
