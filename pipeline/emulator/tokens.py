"""Token counts by the documented rules; changes when Google counts media otherwise.

Sources: ai.google.dev/gemini-api/docs/media-resolution (2026-02-19), /tokens, /image-understanding and
/generate-content/video-understanding.
"""

import math
from collections.abc import Iterable

from pipeline.emulator.messages import Resolution
from pipeline.emulator.model_catalog import Family

CHARACTERS_PER_TOKEN = 4
TILE_TOKENS = 258
SMALL_IMAGE_PIXELS = 384
"""Both sides within this: one tile (2.5 family)."""
UNKNOWN_IMAGE_TILES = 4
AUDIO_TOKENS_PER_SECOND = 32
DEFAULT_FPS = 1.0
UNKNOWN_BYTES_PER_TOKEN = 4
"""For documents and sound, which are not decoded."""
ASSUMED_VIDEO_BYTES_PER_SECOND = 500_000
"""Guesses the duration of a video that is not decoded."""

IMAGE_TOKENS_3: dict[Resolution, int] = {
    "MEDIA_RESOLUTION_UNSPECIFIED": 1120,
    "MEDIA_RESOLUTION_LOW": 280,
    "MEDIA_RESOLUTION_MEDIUM": 560,
    "MEDIA_RESOLUTION_HIGH": 1120,
    "MEDIA_RESOLUTION_ULTRA_HIGH": 2240,
}
IMAGE_TOKENS_25: dict[Resolution, int] = {"MEDIA_RESOLUTION_LOW": 64, "MEDIA_RESOLUTION_MEDIUM": 256}
FRAME_TOKENS: dict[Family, dict[Resolution, int]] = {
    "3": {"MEDIA_RESOLUTION_HIGH": 280, "MEDIA_RESOLUTION_ULTRA_HIGH": 280},
    "2.5": {"MEDIA_RESOLUTION_LOW": 66},
}
FRAME_TOKENS_DEFAULT: dict[Family, int] = {"3": 70, "2.5": 258}


def of_text(characters: int) -> int:
    """About four characters a token."""
    return math.ceil(characters / CHARACTERS_PER_TOKEN)


def of_image(size: tuple[int, int] | None, family: Family, resolution: Resolution) -> int:
    """One image; ``size`` is width and height in pixels, None where unknown."""
    if family == "3":
        return IMAGE_TOKENS_3[resolution]
    if resolution in IMAGE_TOKENS_25:
        return IMAGE_TOKENS_25[resolution]
    if size is None:
        return UNKNOWN_IMAGE_TILES * TILE_TOKENS
    return TILE_TOKENS * _tiles(*size)


def _tiles(width: int, height: int) -> int:
    if max(width, height) <= SMALL_IMAGE_PIXELS:
        return 1
    unit = max(1, math.floor(min(width, height) / 1.5))
    return math.ceil(width / unit) * math.ceil(height / unit)


def of_video(
    seconds: float, *, has_audio: bool, family: Family, resolution: Resolution, fps: float = DEFAULT_FPS
) -> tuple[int, int]:
    """The frames' and the sound's tokens of ``seconds`` of video."""
    frame = FRAME_TOKENS[family].get(resolution, FRAME_TOKENS_DEFAULT[family])
    frames = max(1, math.ceil(seconds * fps))
    return frames * frame, math.ceil(seconds * AUDIO_TOKENS_PER_SECOND) if has_audio else 0


def details(counts: Iterable[tuple[str, int]]) -> list[dict[str, int | str]]:
    """``promptTokensDetails``: one entry a modality, in order of first appearance, zero ones left out."""
    sums: dict[str, int] = {}
    for modality, count in counts:
        if count:
            sums[modality] = sums.get(modality, 0) + count
    return [{"modality": modality, "tokenCount": count} for modality, count in sums.items()]
