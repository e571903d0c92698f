"""Large files are read ahead of their turn, side by side: one thread hashes slower than a good network sends."""

import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from threading import Event, get_native_id
from typing import Final, Generic, TypeVar

Found = TypeVar("Found")
Read = Callable[[str, str, Callable[[], None]], Found]
"""Reads the file at a location, which messages call by another name; calls a function now and then that may raise."""

FILES_AHEAD: Final = 4
"""Files that are read before their turn: what a run that ends early has read in vain."""

THREADS: Final = max(2, min(FILES_AHEAD, os.cpu_count() or 1))
LOOK_SECONDS: Final = 0.1

NICENESS: Final = 5
"""Of these threads, more than the run's own (a third of its weight): on two busy cores the event loop is then late by
half as much."""


class Abandoned(Exception):
    """Nobody waits for this file any more."""


def _step_back() -> None:
    """This thread gets what processor the others leave: what is sent, and the event loop, come first."""
    if sys.platform == "linux":  # elsewhere it would be the whole process
        thread = get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)


class Ahead(Generic[Found]):
    """At most ``FILES_AHEAD`` files on their way. Used by one thread, which may be told to stop while it waits."""

    def __init__(self, read: Read[Found], *, check_cancelled: Callable[[], None]) -> None:
        self._read = read
        self._check_cancelled = check_cancelled
        self._threads: ThreadPoolExecutor | None = None
        self._coming: dict[str, Future[Found]] = {}
        self._abandoned = Event()

    @property
    def has_room(self) -> bool:
        """Whether one more may be begun."""
        return len(self._coming) < FILES_AHEAD

    def begin(self, location: str, shown: str) -> None:
        """Begin to read a file."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, "read ahead", initializer=_step_back)
            self._abandoned = Event()
        if location not in self._coming:
            self._coming[location] = self._threads.submit(self._read, location, shown, self._check(self._abandoned))

    def take(self, location: str) -> Found | None:
        """What came of a file that was begun; None where it was not. Raises what reading it raised."""
        coming = self._coming.pop(location, None)
        while coming is not None:
            try:
                return coming.result(LOOK_SECONDS)
            except NotYet:
                if coming.done():  # it is what reading raised
                    raise
                self._check_cancelled()
        return None

    def abandon(self) -> None:
        """What was begun and not taken will not be; others may be begun."""
        if self._coming:
            self.close()

    def close(self) -> None:
        """As ``abandon``, and end the threads; may be used again."""
        self._coming.clear()
        self._abandoned.set()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    def _check(self, abandoned: Event) -> Callable[[], None]:
        def check() -> None:
            if abandoned.is_set():
                raise Abandoned

        return check
