"""Finds the media of a request, inline or by file; changes when media can travel in another way."""

import hashlib
import re
from dataclasses import dataclass

from pipeline.emulator import api_errors
from pipeline.emulator.files import StoredFile
from pipeline.emulator.media_facts import NOT_DECODED, Facts
from pipeline.emulator.messages import Blob, FileData, GenerateContentRequest, Resolution, VideoMetadata
from pipeline.emulator.reply import Refusal
from pipeline.emulator.service import Service
from pipeline.limits import IMAGE_TYPES, VIDEO_TYPES

OTHER_VIDEO_TYPES = frozenset({"video/quicktime"})
"""Listed by the newer guide page only (gemini-api/docs/video-understanding)."""
OTHER_TYPES = frozenset(
    {
        "application/pdf",
        "application/json",
        "audio/wav",
        "audio/mp3",
        "audio/aiff",
        "audio/aac",
        "audio/ogg",
        "audio/flac",
    }
)
"""Documents and sound: taken, but only roughly counted (gemini-api/docs/audio, /document-processing)."""
SUPPORTED_TYPES = IMAGE_TYPES | VIDEO_TYPES | OTHER_VIDEO_TYPES | OTHER_TYPES
_FILE_URI = re.compile(r"(?:.*/)?files/([^/:?]+)")


@dataclass(slots=True, kw_only=True)
class Medium:
    """One medium of a request, in the order in which the parts name it."""

    mime_type: str
    size_bytes: int = 0
    sha256: str = ""
    file: StoredFile | None = None
    missing: str = ""
    """The identifier of a file that cannot be had."""
    clip: VideoMetadata | None = None
    resolution: Resolution = "MEDIA_RESOLUTION_UNSPECIFIED"
    facts: Facts = NOT_DECODED

    @property
    def kind(self) -> str:
        """``image``, ``video``, ``audio``, ``application`` or ``text``."""
        return self.mime_type.split("/")[0]


def gather(service: Service, request: GenerateContentRequest, project: str) -> tuple[str, list[Medium]]:
    """The prompt's text and every medium, before anything is checked."""
    texts: list[str] = []
    media: list[Medium] = []
    for content in request.contents:
        for part in content.parts:
            if part.text is not None:
                texts.append(part.text)
            medium = None
            if part.inline_data is not None:
                medium = _inline(service, part.inline_data)
            elif part.file_data is not None:
                medium = _by_file(service, part.file_data, project)
            if medium is not None:
                medium.clip = part.video_metadata
                if part.media_resolution:
                    medium.resolution = part.media_resolution.level
                media.append(medium)
    return "\n".join(texts), media


def check(service: Service, media: list[Medium]) -> None:
    """Refuse what no model would take."""
    max_images, max_videos = service.plan.limits.max_images, service.plan.limits.max_videos
    for medium in media:
        if medium.missing:
            raise Refusal(api_errors.file_missing(medium.missing))
        if medium.file is not None:
            _require_active(service, medium.file)
        if not _is_supported(medium.mime_type):
            raise Refusal(api_errors.unsupported_type(medium.mime_type))
    if sum(medium.kind == "image" for medium in media) > max_images:
        # The wording of linyqh/NarratoAI#33.
        raise Refusal(api_errors.invalid_argument(f"Please use fewer than {max_images} images in your request"))
    if sum(medium.kind == "video" for medium in media) > max_videos:
        raise Refusal(api_errors.invalid_argument(f"Please use at most {max_videos} videos in your request"))


def _require_active(service: Service, file: StoredFile) -> None:
    # Looked up again: it may have been deleted since the request was read.
    now = service.seconds()
    if service.files.get(file.identifier, file.project, now).state(now) != "ACTIVE":
        raise Refusal(api_errors.file_not_active(file.identifier))


def _is_supported(mime_type: str) -> bool:
    essence = mime_type.partition(";")[0].strip().lower()
    return essence in SUPPORTED_TYPES or essence.startswith("text/")


def _inline(service: Service, blob: Blob) -> Medium:
    sha256 = hashlib.sha256(blob.data).hexdigest()
    plan = service.plan
    if plan.describe == "full" and len(blob.data) <= plan.decode_bytes:
        service.facts.keep(sha256, blob.data)
    return Medium(mime_type=blob.mime_type, size_bytes=len(blob.data), sha256=sha256)


def _by_file(service: Service, data: FileData, project: str) -> Medium:
    match = _FILE_URI.fullmatch(data.file_uri)
    if match is None:
        # The wording of maximhq/bifrost#1989; nothing outside is ever fetched.
        raise Refusal(api_errors.invalid_argument("Cannot fetch content from the provided URL."))
    file = service.files.find(match[1], project, service.seconds())
    if file is None:
        return Medium(mime_type=data.mime_type, missing=match[1])
    return Medium(mime_type=data.mime_type or file.mime_type, size_bytes=file.size_bytes, sha256=file.sha256, file=file)
