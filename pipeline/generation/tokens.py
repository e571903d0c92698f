"""Estimates, without I/O, the input tokens of a request; the governor corrects it by what ``usageMetadata`` says.

The tables are those of gemini-api/docs/media-resolution (2026-02-19) and gemini-api/docs/tokens. Neither a picture's
size nor a video's length is known here, so a picture counts its model's maximum and a video is guessed by its bytes.
"""

from typing import Final

import msgspec

from pipeline.records import Item, Media

CHARACTERS_PER_TOKEN: Final = 4
IMAGE_TOKENS: Final = {"LOW": 280, "MEDIUM": 560, "HIGH": 1120, "ULTRA_HIGH": 2240}
IMAGE_TOKENS_2: Final = {"LOW": 64, "MEDIUM": 256, "HIGH": 1548}
FRAME_TOKENS: Final = {"HIGH": 280}
FRAME_TOKENS_2: Final = {"LOW": 64}
AUDIO_TOKENS_PER_SECOND: Final = 32
VIDEO_BYTES_PER_SECOND: Final = 250_000
"""About 2 Mbit/s, an ordinary phone's or web video."""


def estimate(item: Item) -> int:
    """Input tokens of ``item``, roughly."""
    second_family = item.model.startswith(("gemini-2", "gemini-1"))
    resolution = str(item.generation.get("mediaResolution", "")).removeprefix("MEDIA_RESOLUTION_")
    image = IMAGE_TOKENS_2.get(resolution, 1548) if second_family else IMAGE_TOKENS.get(resolution, 1120)
    frame = FRAME_TOKENS_2.get(resolution, 258) if second_family else FRAME_TOKENS.get(resolution, 70)
    characters = len(item.prompt) + len(item.system or "") + sum(map(len, item.labels))
    if item.schema:
        characters += len(msgspec.json.encode(item.schema))
    media = sum(image if m.is_image else _video_tokens(m, frame) for m in item.media)
    return media + characters // CHARACTERS_PER_TOKEN + 1


def _video_tokens(media: Media, frame_tokens: int) -> int:
    seconds = media.size_bytes / VIDEO_BYTES_PER_SECOND
    start = media.start_seconds or 0.0
    if media.end_seconds is not None:
        seconds = media.end_seconds - start
    return int(max(1.0, seconds) * ((media.fps or 1.0) * frame_tokens + AUDIO_TOKENS_PER_SECOND))
