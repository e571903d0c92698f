"""Builds, without I/O, the body of a generateContent request and checks it against every limit."""

from collections.abc import Mapping
from typing import Any

import msgspec

from pipeline.errors import Failure, ItemError
from pipeline.limits import Limits
from pipeline.records import Content, Item, Json, Media, Placed, Ready


def body(ready: Ready, inline: Mapping[Content, bytes], limits: Limits) -> bytes:
    """The JSON body for ``ready``; ``inline`` holds the bytes of each medium without a remote file.

    Fields are those of GenerateContentRequest in camel case (api/generate-content). Raises ``ItemError`` where a
    limit forbids the request.
    """
    check(ready.item, limits)
    encoded = msgspec.json.encode(request(ready, inline))
    if len(encoded) > limits.inline_request_bytes:
        raise refusal(
            "request_too_large",
            f"the request has {len(encoded)} bytes; the API takes {limits.inline_request_bytes}",
        )
    return encoded


def check(item: Item, limits: Limits) -> None:
    """Refuse an item with more images or videos than one request may hold. Raises ``ItemError``."""
    images = sum(m.is_image for m in item.media)
    if images > limits.max_images:
        raise refusal("too_many_images", f"{images} images; one request takes {limits.max_images}")
    videos = sum(m.is_video for m in item.media)
    if videos > limits.max_videos:
        raise refusal("too_many_videos", f"{videos} videos; one request takes {limits.max_videos}")


def request(ready: Ready, inline: Mapping[Content, bytes]) -> dict[str, Any]:
    """The request as a JSON object, bytes in it still as they are: msgspec writes them as base64, in one go.

    One medium comes before the text, as the guide advises (generate-content/image-understanding, /video-understanding);
    a series comes in its order, each medium after its label if it has one, and the text last.
    """
    item = ready.item
    parts: list[dict[str, Any]] = []
    for index, part in enumerate(ready.parts):
        if item.labels:
            parts.append({"text": item.labels[index]})
        parts.append(media_part(part, inline))
    parts.append({"text": item.prompt})
    whole: dict[str, Any] = {"contents": [{"role": "user", "parts": parts}]}
    if item.system:
        whole["systemInstruction"] = {"parts": [{"text": item.system}]}
    if config := generation_config(item):
        whole["generationConfig"] = config
    if item.safety:
        whole["safetySettings"] = [{"category": c, "threshold": t} for c, t in item.safety.items()]
    return whole


def generation_config(item: Item) -> dict[str, Json]:
    """The item's generationConfig, with its schema as ``responseJsonSchema`` (JSON Schema, not the OpenAPI subset)."""
    if item.schema is None:
        return item.generation
    return {**item.generation, "responseMimeType": "application/json", "responseJsonSchema": item.schema}


def media_part(part: Placed, inline: Mapping[Content, bytes]) -> dict[str, Any]:
    """One medium as a Part."""
    media = part.media
    if part.file:
        whole: dict[str, Any] = {"fileData": {"fileUri": part.file.uri, "mimeType": media.mime_type}}
    else:
        whole = {"inlineData": {"mimeType": media.mime_type, "data": inline[media.content]}}
    if metadata := video_metadata(media):
        whole["videoMetadata"] = metadata
    return whole


def video_metadata(media: Media) -> dict[str, Json]:
    """``videoMetadata``: offsets as Durations (``"1.5s"``), frames a second as a number (api/caching#VideoMetadata)."""
    metadata: dict[str, Json] = {}
    if media.start_seconds is not None:
        metadata["startOffset"] = duration(media.start_seconds)
    if media.end_seconds is not None:
        metadata["endOffset"] = duration(media.end_seconds)
    if media.fps is not None:
        metadata["fps"] = media.fps
    return metadata


def duration(seconds: float) -> str:
    """Seconds as a protobuf Duration in JSON: at most nine decimals, never an exponent."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def refusal(kind: str, message: str) -> ItemError:
    """A failure of the request itself, before it is sent."""
    return ItemError(Failure(stage="generation", kind=kind, message=message))
