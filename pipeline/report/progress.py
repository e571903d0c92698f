"""Progress on stderr: tqdm bars on a terminal, plain lines elsewhere. The only file that imports tqdm."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final, Never, Self, TextIO

from pipeline.events import (
    BytesUploaded,
    CallEnded,
    CallSent,
    DrainBegan,
    GateClosed,
    ItemAdmitted,
    ItemCommitted,
    Listening,
    SourceRead,
    Warned,
)
from pipeline.gemini.api import Route
from pipeline.plain_text import printable
from pipeline.records import Status
from pipeline.standard_streams import let_go

if TYPE_CHECKING:
    from tqdm import tqdm

PLAIN_LINE_SECONDS: Final = 30.0
"""Where stderr is no terminal, one line this often."""


class Progress(Listening):
    """The observer that shows a person how far the run is."""

    def __init__(self, *, quiet: bool, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._terminal = self._stream.isatty()
        self._bar: tqdm[Never] | None = None
        self._to_do = self._done = self._failed = self._in_flight = self._tokens = self._bytes = 0
        self._said_at = time.monotonic()
        self._total_known = False
        super().__init__(
            {
                ItemAdmitted: self._admitted,
                ItemCommitted: self._committed,
                CallSent: self._sent,
                CallEnded: self._ended,
                BytesUploaded: self._uploaded,
                SourceRead: self._source_read,
                Warned: self._told,
                GateClosed: self._told,
                DrainBegan: self._drain_began,
            }
        )

    def __enter__(self) -> Self:
        if self._terminal and not self._quiet:
            from tqdm import tqdm

            self._bar = tqdm(total=0, unit="item", file=self._stream, dynamic_ncols=True, smoothing=0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lasting():
            if self._bar:
                self._bar.close()

    def _admitted(self, event: ItemAdmitted) -> None:
        self._to_do += event.decision in ("send", "rejected")

    def _committed(self, event: ItemCommitted) -> None:
        self._done += 1
        self._failed += event.status != Status.SUCCEEDED
        self._tokens += event.total_tokens
        self._advance()

    def _sent(self, event: CallSent) -> None:
        self._in_flight += event.route == Route.GENERATE

    def _ended(self, event: CallEnded) -> None:
        self._in_flight -= event.route == Route.GENERATE

    def _uploaded(self, event: BytesUploaded) -> None:
        self._bytes += event.size_bytes

    def _source_read(self, _event: SourceRead) -> None:
        self._total_known = True

    def _told(self, event: Warned | GateClosed) -> None:
        self.say(event.message)

    def _drain_began(self, event: DrainBegan) -> None:
        if self._in_flight:  # else the end follows at once, and tells the reason
            self.say(f"{event.reason}; finishing what is in flight")

    def say(self, sentence: str) -> None:
        """One sentence, without tearing the bar."""
        if self._quiet:
            return
        safe = printable(sentence)
        with self._lasting():
            if self._bar:
                self._bar.write(safe, file=self._stream)
            else:
                print(safe, file=self._stream, flush=True)

    @contextmanager
    def _lasting(self) -> Iterator[None]:
        """A terminal that hangs up, or a full file, ends the display and nothing else."""
        try:
            yield
        except OSError:
            self._quiet, self._bar = True, None
            let_go(self._stream)

    def _advance(self) -> None:
        if self._bar:
            self._bar.total = self._to_do
            self._bar.set_postfix_str(self._figures(), refresh=False)
            with self._lasting():
                self._bar.update(1)
        elif not self._quiet and time.monotonic() - self._said_at >= PLAIN_LINE_SECONDS:
            self._said_at = time.monotonic()
            of = f" of {self._to_do}" if self._total_known else ""
            self.say(f"{self._done}{of} items, {self._figures()}")

    def _figures(self) -> str:
        return (
            f"{self._bytes / 1e6:.1f} MB up, {self._in_flight} in flight, "
            f"{self._failed} failed, {self._tokens:,} tokens"
        )
