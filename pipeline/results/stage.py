"""ROOM 5: outcomes in, durable lines on disk; the only writer of results.jsonl.

Group commit comes naturally here: while one batch is being written the stream fills with the next.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple

import anyio
from anyio import CancelScope, WouldBlock, get_cancelled_exc_class

from pipeline.errors import StopForHuman, StopRun
from pipeline.events import ItemCommitted, Observer
from pipeline.group_commit import company
from pipeline.own_thread import OwnThread
from pipeline.records import Outcome, ResultLine
from pipeline.results.record import encode, line_of, mark_of
from pipeline.results.run_folder import RunFolder
from pipeline.streams import Receiver

BATCH_BYTES = 8 * 1024 * 1024
COMMIT_DEADLINE_SECONDS = 120.0


class _Entry(NamedTuple):
    outcome: Outcome
    line: ResultLine
    data: bytes


class ResultsRoom:
    """Commits outcomes: line durable, then ledger, then acknowledgement."""

    def __init__(
        self,
        folder: RunFolder,
        *,
        backend: str,
        observer: Observer,
        on_committed: Callable[[Outcome], None],
        on_stop: Callable[[StopRun], None] = lambda _stop: None,
    ) -> None:
        """``on_stop`` hears of the first commit that fails, while outcomes may still come."""
        self._folder = folder
        self._results = folder.results
        self._ledger = folder.ledger
        self._backend = backend
        self._observer = observer
        self._on_committed = on_committed
        self._on_stop = on_stop
        self._expected: dict[int, asyncio.Future[None]] = {}
        self._stop: StopRun | None = None
        self._is_silent = False
        self._thread = OwnThread("results")

    async def run(self, outcomes: Receiver[Outcome]) -> None:
        """Commit until the stream ends. Raises ``StopRun`` then, if a commit has failed.

        What comes after that commit is salvaged, and what already waits when cancelled is committed: those answers
        were paid for.
        """
        async with outcomes:
            try:
                async for outcome in outcomes:
                    first = self._entry(outcome)
                    with CancelScope(shield=True):
                        await company()
                    await self._take([first, *self._waiting(outcomes)])
            except get_cancelled_exc_class():
                while batch := self._waiting(outcomes):
                    await self._take(batch)
                raise
            finally:
                self._thread.close()
                self._acknowledge(list(self._expected))
        if self._stop:
            raise self._stop

    def expect(self, outcome: Outcome) -> "asyncio.Future[None]":
        """To be asked before ``outcome`` is sent: done when it is durable, or when this room can do no more for it."""
        done = self._expected[id(outcome)] = asyncio.get_running_loop().create_future()
        return done

    def _acknowledge(self, outcomes: Iterable[int]) -> None:
        for outcome in outcomes:
            done = self._expected.pop(outcome, None)
            if done is not None and not done.done():  # else who waited was cancelled
                done.set_result(None)

    @property
    def waiting(self) -> int:
        """Outcomes that somebody waits for and that are not durable yet."""
        return len(self._expected)

    async def _take(self, batch: list[_Entry]) -> None:
        """Commit. Once that has failed, a batch only gets as far as file and ledger let it; none is acknowledged."""
        try:
            if not self._is_silent:  # a disk that has not answered for minutes would only hold up the end
                await self._commit(batch)
        except StopRun as stop:
            if self._stop is None:
                self._stop = stop
                self._folder.is_sound = False
                self._on_stop(stop)
        finally:
            self._acknowledge(id(entry.outcome) for entry in batch)

    def _entry(self, outcome: Outcome) -> _Entry:
        line = line_of(outcome, self._backend)
        return _Entry(outcome, line, encode(line))

    def _waiting(self, outcomes: Receiver[Outcome]) -> list[_Entry]:
        """What can be had at once, of about ``BATCH_BYTES`` at most."""
        entries: list[_Entry] = []
        size_bytes = 0
        while size_bytes < BATCH_BYTES:
            try:
                entry = self._entry(outcomes.receive_nowait())
            except WouldBlock:
                break
            entries.append(entry)
            size_bytes += len(entry.data)
        return entries

    async def _commit(self, batch: list[_Entry]) -> None:
        with CancelScope(shield=True, deadline=anyio.current_time() + COMMIT_DEADLINE_SECONDS) as scope:
            start = self._results.end
            lines = [entry.data for entry in batch]
            await self._thread.call(self._results.append, lines)
            marks = []
            for data in lines:
                marks.append(mark_of(data[:-1], start))
                start += len(data)
            await self._ledger.mark(marks, self._results.offset())
        if scope.cancelled_caught:
            self._is_silent = True
            silence = f"no answer from the disk for {COMMIT_DEADLINE_SECONDS:g} s"
            raise StopForHuman(f"{self._results.path}: {silence}: see to it, then run again")
        for entry in batch:
            self._observer.notify(_committed(entry))
            self._on_committed(entry.outcome)


def _committed(entry: _Entry) -> ItemCommitted:
    line, usage = entry.line, entry.line.usage
    return ItemCommitted(
        key=line.key,
        status=line.status,
        stage=line.error.stage if line.error else None,
        kind=line.error.kind if line.error else None,
        message=line.error.message if line.error else None,
        attempts=line.attempts,
        prompt_tokens=usage.prompt_tokens,
        output_tokens=usage.output_tokens,
        thoughts_tokens=usage.thoughts_tokens,
        cached_tokens=usage.cached_tokens,
        total_tokens=usage.total_tokens,
        seconds=(entry.outcome.finished_at - entry.outcome.started_at).total_seconds(),
    )
