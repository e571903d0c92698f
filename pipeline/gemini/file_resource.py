"""The API's File resource, decoded; nothing in here raises on any input."""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from pipeline.plain_text import one_line
from pipeline.records import FileState, Json, RemoteFile

FILE_NAME = re.compile(r"files/[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_HEX = re.compile(rb"[0-9a-fA-F]{64}")
_INT64 = re.compile(r"-?\d{1,19}", re.ASCII)
_STATES: dict[str | int, FileState] = {
    **{state.value: state for state in FileState},
    0: FileState.STATE_UNSPECIFIED,
    1: FileState.PROCESSING,
    2: FileState.ACTIVE,
    10: FileState.FAILED,
}
"""By name and, as some clients write enumerations, by number (File.State)."""


def decode_file(value: Json, *, untold: FileState = FileState.STATE_UNSPECIFIED) -> RemoteFile | None:
    """A File, bare (``files.get``) or wrapped in ``file`` (finalize); None where it is none.

    ``untold`` is the state of a file of which none is told.
    """
    if isinstance(value, dict) and isinstance(value.get("file"), dict):
        value = value["file"]
    if not isinstance(value, dict):
        return None
    name, uri = value.get("name"), value.get("uri")
    if not isinstance(name, str) or not FILE_NAME.fullmatch(name):
        return None
    error = value.get("error")
    error = error if isinstance(error, dict) else {}
    return RemoteFile(
        name=name,
        uri=uri if isinstance(uri, str) else "",
        mime_type=_text(value, "mimeType") or "",
        size_bytes=_int64(value.get("sizeBytes")) or 0,
        state=_state(value.get("state"), untold),
        sha256=decode_sha256(value.get("sha256Hash")),
        expires_at=decode_time(value.get("expirationTime")),
        created_at=decode_time(value.get("createTime")),
        display_name=_text(value, "displayName"),
        error_code=_int64(error.get("code")),
        error_message=one_line(message) or None if (message := _text(error, "message")) else None,
    )


def decode_sha256(value: Json) -> str | None:
    """Lower-case hex of ``sha256Hash``: base64 of the hex text (googleapis/js-genai#381) or of the bytes, or hex."""
    if not isinstance(value, str):
        return None
    if _HEX.fullmatch(value.encode("utf-8", "replace")):
        return value.lower()
    try:
        raw = base64.b64decode(value.replace("-", "+").replace("_", "/") + "==", validate=False)
    except (binascii.Error, ValueError):
        return None
    if _HEX.fullmatch(raw):
        return raw.decode().lower()
    return raw.hex() if len(raw) == 32 else None


def decode_time(value: Json) -> datetime | None:
    """An RFC 3339 time; the service writes up to nine digits of a second, of which six are kept."""
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if not found:
        return None
    try:
        moment = datetime.fromisoformat(f"{found[1]}.{(found[2] or '0')[:6].ljust(6, '0')}{found[3]}")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _state(value: Json, untold: FileState) -> FileState:
    if value in (None, "", 0, FileState.STATE_UNSPECIFIED):
        return untold
    known = _STATES.get(value) if isinstance(value, str | int) else None
    return known or FileState.STATE_UNSPECIFIED


def _int64(value: Json) -> int | None:
    """An int64, which JSON carries as a string; a number is taken too."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 2**63 else None
    if isinstance(value, str) and _INT64.fullmatch(value):
        return int(value)
    return None


def _text(value: Mapping[str, Json], field: str) -> str | None:
    found = value.get(field)
    return found if isinstance(found, str) else None
