"""Decides, without I/O, how the media of an item travel."""

from enum import StrEnum

import msgspec

from pipeline.errors import Failure, ItemError
from pipeline.limits import Limits
from pipeline.records import Content, Item, Media
from pipeline.spec import Via

PART_OVERHEAD_BYTES = 256
"""More than the JSON around one part: names, braces, MIME type, video metadata."""


class Travel(StrEnum):
    """How all media of an item travel; also ``via`` in the result line."""

    INLINE = "inline"
    FILES = "files"


def travel(item: Item, *, via: Via, inline_max_bytes: int, limits: Limits) -> Travel:
    """How the media of ``item`` travel.

    ``auto`` goes inline while the media have at most ``inline_max_bytes``; nothing goes inline that would not
    fit into ``limits.inline_request_bytes`` after base64.
    """
    if not item.media:
        return Travel.INLINE
    if via == "files":
        return Travel.FILES
    media_bytes = sum(m.size_bytes for m in item.media)
    if via == "auto" and media_bytes > inline_max_bytes:
        return Travel.FILES
    return Travel.INLINE if inline_request_bytes(item) <= limits.inline_request_bytes else Travel.FILES


def inline_request_bytes(item: Item) -> int:
    """Upper bound of the request's size in bytes, should all media of ``item`` travel inline."""
    base64_bytes = sum(4 * -(-m.size_bytes // 3) for m in item.media)
    texts = (item.prompt, item.system, item.labels, item.generation, item.safety, item.schema)
    return base64_bytes + len(msgspec.json.encode(texts)) + PART_OVERHEAD_BYTES * (2 * len(item.media) + 4)


def contents(item: Item) -> dict[Content, Media]:
    """The different files of ``item``, in order of first use."""
    different: dict[Content, Media] = {}
    for media in item.media:
        different.setdefault(media.content, media)
    return different


def check_storage(item: Item, limits: Limits) -> None:
    """Refuse an item that needs more storage than the project can ever have. Raises ``ItemError``."""
    needed = sum(m.size_bytes for m in contents(item).values())
    if needed > limits.project_storage_bytes:
        raise ItemError(
            Failure(
                stage="upload",
                kind="request_too_large",
                message=f"its files need {needed} bytes of File API storage, of which a project has "
                f"{limits.project_storage_bytes}; split the item",
            )
        )
