"""``run.log``: one JSON object a line of what an operator wants to know the morning after; no secrets."""

import logging
import os
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

import msgspec

from pipeline.clock import timestamp
from pipeline.errors import StopForHuman
from pipeline.events import (
    BytesUploaded,
    CallEnded,
    CallSent,
    Event,
    ItemAdmitted,
    ItemCommitted,
    ItemState,
)
from pipeline.plain_text import printable_json
from pipeline.records import Status
from pipeline.redaction import Redaction

ROTATE_BYTES: Final = 100 * 1024 * 1024
KEPT_FILES: Final = 5
PRIVATE_FILE: Final = 0o600
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

ONLY_VERBOSE = (BytesUploaded, CallSent, CallEnded, ItemAdmitted, ItemState)


class JsonLog:
    """The observer that writes the log. ``secrets`` are cut out of every line, should one ever get that far."""

    def __init__(self, path: Path, *, secrets: tuple[str, ...], verbose: bool) -> None:
        self._handler = _PrivateFiles(path, maxBytes=ROTATE_BYTES, backupCount=KEPT_FILES, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(message)s"))
        self._redaction = Redaction(*secrets)
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
        line = printable_json(self._redaction.text(msgspec.json.encode(whole, enc_hook=str).decode("utf-8", "replace")))
        self._handler.emit(logging.LogRecord("pipeline", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class _PrivateFiles(RotatingFileHandler):
    """Every file of the rotation is as private as the first, and none is written through a link."""

    def _open(self) -> TextIOWrapper:
        try:
            descriptor = os.open(self.baseFilename, _FLAGS, PRIVATE_FILE)
        except OSError as error:
            raise StopForHuman(
                f"{self.baseFilename} can't be opened ({error.strerror}): put that right, then run again"
            ) from error
        return TextIOWrapper(os.fdopen(descriptor, "ab"), encoding="utf-8")


def snake_case(name: str) -> str:
    """``CallEnded`` as ``call_ended``."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
