"""Small records by default: a test names only what it is about."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.records import FileIdentity, FileState, Item, Media, Placed, Ready, RemoteFile, Uploaded

NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)


def media(name: str = "a.jpg", **given: Any) -> Media:
    """A small picture whose hash follows from its name."""
    fields: dict[str, Any] = {
        "path": name,
        "location": f"/nowhere/{name}",
        "mime_type": "image/jpeg",
        "size_bytes": 1000,
        "sha256": f"{sum(map(ord, name)):064x}",
        "identity": FileIdentity(size_bytes=1000, mtime_ns=1, ctime_ns=1, inode=1),
    }
    return Media(**fields | given)


def item(key: str = "a", *media_given: Media, **given: Any) -> Item:
    """An item with one picture."""
    fields: dict[str, Any] = {
        "key": key,
        "position": 0,
        "line": None,
        "model": "gemini-3.8-flash",
        "media": media_given or (media(),),
        "prompt": "Describe this media.",
        "prompt_sha256": "0" * 64,
        "fingerprint": "v1:" + "0" * 64,
    }
    return Item(**fields | given)


def remote(
    name: str = "files/a", *, state: FileState = FileState.ACTIVE, life_seconds: float = 172800, **given: Any
) -> RemoteFile:
    """A remote file that lives ``life_seconds`` from NOW."""
    fields: dict[str, Any] = {
        "name": name,
        "uri": f"https://generativelanguage.googleapis.com/v1beta/{name}",
        "mime_type": "image/jpeg",
        "size_bytes": 1000,
        "state": state,
        "expires_at": NOW + timedelta(seconds=life_seconds),
    }
    return RemoteFile(**fields | given)


def ready(one: Item, *files: RemoteFile | None) -> Ready:
    """``one`` with its media inline, or in ``files``."""
    chosen = files or (None,) * len(one.media)
    parts = tuple(Placed(media=m, file=f) for m, f in zip(one.media, chosen, strict=True))
    return Ready.of(Uploaded(item=one, parts=parts, started_at=NOW))
