"""The decisions of a resumable upload: what to send next, and where a reply says that it stands; pure."""

import msgspec

from pipeline.gemini.api import Reply
from pipeline.gemini.file_resource import decode_file
from pipeline.limits import UPLOAD_GRANULARITY_BYTES
from pipeline.records import Media, RemoteFile

CHUNK_BYTES = 8 * 1024 * 1024
"""Chunks are about this long, so that a cut costs no more."""

_SIZE_DIGITS = 12

CHUNK_FLOOR_SECONDS = 60.0
FLOOR_RATE_BYTES = 64 * 1024
"""A chunk has ``CHUNK_FLOOR_SECONDS`` and a second for each so many bytes, where no time-out is configured."""


class Chunk(msgspec.Struct, frozen=True):
    """The next request of a session; ``length`` 0 only closes it."""

    offset: int
    length: int
    final: bool

    @property
    def command(self) -> str:
        """``X-Goog-Upload-Command``."""
        if not self.length:
            return "finalize"
        return "upload, finalize" if self.final else "upload"


class Standing(msgspec.Struct, frozen=True):
    """Where a session stands by the server's word. ``received`` is None where it doesn't say."""

    status: str
    received: int | None
    file: RemoteFile | None = None


def chunk_bytes(granularity: str | None) -> int:
    """The chunk's length for an ``X-Goog-Upload-Chunk-Granularity``: a multiple of it, near ``CHUNK_BYTES``."""
    unit = _number(granularity or "") or UPLOAD_GRANULARITY_BYTES
    return max(unit, CHUNK_BYTES // unit * unit)


def next_chunk(offset: int, size_bytes: int, unit_bytes: int) -> Chunk:
    """The chunk from ``offset``: any but the last has ``unit_bytes``, for the server refuses other lengths."""
    left = size_bytes - offset
    return Chunk(offset, min(left, unit_bytes), final=left <= unit_bytes)


def chunk_seconds(length: int, configured_seconds: float | None) -> float:
    """How long one chunk may take."""
    return configured_seconds or CHUNK_FLOOR_SECONDS + length / FLOOR_RATE_BYTES


def read_standing(reply: Reply) -> Standing:
    """What a reply of the protocol tells; a File in its body counts as final, whatever became of the headers."""
    file = decode_file(reply.value)
    told = reply.headers.get("x-goog-upload-size-received", "")
    return Standing(
        status="final" if file else reply.headers.get("x-goog-upload-status", "").lower(),
        received=_number(told),
        file=file,
    )


def _number(told: str) -> int | None:
    """A size in a header; None for what is none, or longer than that of any file."""
    return int(told) if told.isascii() and told.isdigit() and len(told) <= _SIZE_DIGITS else None


def mismatch(file: RemoteFile, media: Media) -> str | None:
    """What of the uploaded file is not as it was sent, None where all is well. An untold hash proves nothing."""
    if not file.uri:
        return "the service returned no uri"
    if file.size_bytes != media.size_bytes:
        return f"the service holds {file.size_bytes} bytes of {media.size_bytes}"
    if file.mime_type != media.mime_type:
        return f"the service took it for {file.mime_type or 'nothing'} instead of {media.mime_type}"
    if file.sha256 is not None and file.sha256 != media.sha256:
        return "the service holds other bytes than were sent (SHA-256)"
    return None


def display_name(media: Media) -> str:
    """File name and the hash's beginning; it travels in the JSON body, never in a header, so any name will do."""
    name = media.path.rpartition("/")[2].encode("utf-8", "replace").decode()
    return f"{name[:480]} {media.sha256[:12]}"
