"""``run.log``: one JSON object a line of what an operator wants to know the morning after; no secrets."""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from pipeline.clock import timestamp
from pipeline.events import OFTEN, Event, ItemCommitted, Listener
from pipeline.plain_text import printable_json
from pipeline.records import Status
from pipeline.redaction import Redaction
from pipeline.whole import append_whole, disk_trouble, trouble

ROTATE_BYTES: Final = 100 * 1024 * 1024
KEPT_FILES: Final = 5
PRIVATE_FILE: Final = 0o600
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

ONLY_VERBOSE: Final[frozenset[type[Event]]] = OFTEN - {ItemCommitted}


class JsonLog:
    """The observer that writes the log. ``secrets`` are cut out of every line, should one ever get that far.

    A log that can't be written any more costs no answer: ``on_failure`` hears of it once, and nothing more is written.
    """

    def __init__(
        self,
        path: Path,
        *,
        secrets: tuple[str, ...],
        verbose: bool,
        on_failure: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        """Raises ``StopForHuman`` where the file can't be opened."""
        with disk_trouble(path):
            self._file = _RotatedFile(path)
        self._path = path
        self._redaction = Redaction(*secrets)
        self._verbose = verbose
        self._on_failure = on_failure
        self._has_failed = False

    def listener(self, kind: type[Event]) -> Listener | None:
        """What is to be told of events of this kind."""
        return self.notify if self._verbose or kind not in ONLY_VERBOSE else None

    def notify(self, event: Event) -> None:
        """Write ``event`` down, if it is worth it."""
        if isinstance(event, ItemCommitted) and event.status == Status.SUCCEEDED and not self._verbose:
            return
        self.write(snake_case(type(event).__name__), msgspec.structs.asdict(event))

    def write(self, action: str, fields: dict[str, object]) -> None:
        """Write one line: when, what, and its fields."""
        if self._has_failed:
            return
        whole = {"at": timestamp(datetime.now(UTC)), "action": action, **fields}
        line = printable_json(self._redaction.text(msgspec.json.encode(whole, enc_hook=str).decode("utf-8", "replace")))
        try:
            self._file.append(line.encode() + b"\n")
        except OSError as error:
            self._has_failed = True  # before anybody is told, who may want to log that
            what = f"{trouble(error)} for {self._path} ({error.strerror})"
            self._on_failure(f"{what}: every answer is kept. See to the disk, then run again")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _RotatedFile:
    """Whole lines into one file after another; each is as private as the first, and none is written through a link."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()

    def append(self, line: bytes) -> None:
        """Write the line, all of it or nothing. Raises ``OSError``."""
        if self._end and self._end + len(line) > ROTATE_BYTES:
            self.close()
            self._rotate()
            self._open()
        append_whole(self._fd, line, self._end)
        self._end += len(line)

    def close(self) -> None:
        os.close(self._fd)

    def _open(self) -> None:
        self._fd = os.open(self._path, _FLAGS, PRIVATE_FILE)
        self._end = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        for number in range(KEPT_FILES, 0, -1):
            older = self._numbered(number)
            newer = self._numbered(number - 1) if number > 1 else self._path
            with suppress(FileNotFoundError):
                newer.replace(older)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def snake_case(name: str) -> str:
    """``CallEnded`` as ``call_ended``."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
