"""Every published limit of the Gemini API, with where it comes from; a limit changes here and nowhere else.

Sources are pages under https://ai.google.dev, read in November 2026.
"""

from typing import Annotated, Final

import msgspec

IMAGE_TYPES: Final = frozenset({"image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"})
"""Image MIME types the API takes (gemini-api/docs/generate-content/image-understanding)."""

VIDEO_TYPES: Final = frozenset(
    {
        "video/mp4",
        "video/mpeg",
        "video/mov",
        "video/avi",
        "video/x-flv",
        "video/mpg",
        "video/webm",
        "video/wmv",
        "video/3gpp",
    }
)
"""Video MIME types the API takes (gemini-api/docs/generate-content/video-understanding)."""

UPLOAD_GRANULARITY_BYTES: Final = 8 * 1024 * 1024
"""Size of an upload chunk where the server names none; a multiple of every granularity seen in the family."""

DISPLAY_NAME_CHARACTERS: Final = 512
"""Longest ``File.displayName`` (api/files)."""

FPS_MAX: Final = 24.0
"""``videoMetadata.fps`` lies in (0, 24] (api/caching)."""

SERVER_TIMEOUT_MIN_SECONDS: Final = 10
"""``X-Server-Timeout`` below this is refused with 400 (livekit/agents#3723)."""

REUSE_HORIZON_PLANNED_SECONDS: Final = 3600.0
"""A remote file is planned for reuse only while it lives at least this long."""

REUSE_HORIZON_SENT_SECONDS: Final = 600.0
"""A remote file is named in a request only while it lives at least this long."""


Amount = Annotated[int, msgspec.Meta(ge=0)]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits a user may override in ``[limits]``; the defaults are the published ones."""

    max_images: Amount = 3600
    """Images in one request (gemini-api/docs/image-understanding)."""
    max_videos: Amount = 10
    """Videos in one request, Gemini 2.5 and later (…/generate-content/video-understanding)."""
    inline_request_bytes: Amount = 20 * 1024 * 1024
    """Whole body of a request with inline media, after base64."""
    file_bytes: Amount = 2 * 1024**3
    """One file of the File API (gemini-api/docs/files)."""
    project_storage_bytes: Amount = 20 * 1024**3
    """All files of a project; the service's quotaValue is 21474836480 (googleapis/python-genai#1172)."""
    file_life_seconds: Amount = 48 * 3600
    """Life of an uploaded file where the server names no ``expirationTime`` (gemini-api/docs/files)."""
