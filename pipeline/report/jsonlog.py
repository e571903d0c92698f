"""``run.log``: one JSON object a line of what an operator wants to know the morning after; no secrets."""

import logging
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

import msgspec

from pipeline.clock import timestamp
from pipeline.events import (
    BytesUploaded,
    CallEnded,
    CallSent,
    Event,
    ItemAdmitted,
    ItemCommitted,
    ItemState,
)
from pipeline.records import Status

ROTATE_BYTES: Final = 100 * 1024 * 1024
KEPT_FILES: Final = 5
REDACTED: Final = "[key]"
SECRET_CHARACTERS: Final = 8
"""Anything shorter would be cut out of words that are no secret."""

ONLY_VERBOSE = (BytesUploaded, CallSent, CallEnded, ItemAdmitted, ItemState)


class JsonLog:
    """The observer that writes the log. ``secrets`` are cut out of every line, should one ever get that far."""

    def __init__(self, path: Path, *, secrets: tuple[str, ...], verbose: bool) -> None:
        path.touch(mode=0o600)
        self._handler = RotatingFileHandler(path, maxBytes=ROTATE_BYTES, backupCount=KEPT_FILES, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(message)s"))
        self._secrets = tuple(secret for secret in secrets if len(secret) >= SECRET_CHARACTERS)
        self._verbose = verbose

    def notify(self, event: Event) -> None:
        """Write ``event`` down, if it is worth it."""
        if isinstance(event, ONLY_VERBOSE) and not self._verbose:
            return
        if isinstance(event, ItemCommitted) and event.status == Status.SUCCEEDED and not self._verbose:
            return
        self.write(snake_case(type(event).__name__), msgspec.structs.asdict(event))

    def write(self, action: str, fields: dict[str, object]) -> None:
        """Write one line: when, what, and its fields."""
        whole = {"at": timestamp(datetime.now(UTC)), "action": action, **fields}
        line = msgspec.json.encode(whole, enc_hook=str).decode("utf-8", "replace")
        for secret in self._secrets:
            line = line.replace(secret, REDACTED)
        self._handler.emit(logging.LogRecord("pipeline", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


def snake_case(name: str) -> str:
    """``CallEnded`` as ``call_ended``."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
