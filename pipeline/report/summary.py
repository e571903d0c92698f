"""Counts what happens in a run and sums it up: summary.json, ``--json`` and the exit code."""

from collections import Counter
from datetime import datetime
from pathlib import Path

import msgspec

from pipeline.clock import timestamp
from pipeline.errors import ExitCode
from pipeline.events import (
    BytesUploaded,
    CallEnded,
    CallSent,
    ItemAdmitted,
    ItemCommitted,
    Listening,
    SourceRead,
)
from pipeline.gemini.api import Route
from pipeline.records import Status, Usage
from pipeline.report.bottleneck import Bottleneck
from pipeline.report.loop_lag import LagMs
from pipeline.report.occupancy import StageUse
from pipeline.report.refusals import Quota
from pipeline.whole import replace_file

ADMITTED_UNCHANGED = frozenset({"unchanged", "kept"})
ADMITTED_FAILED_BEFORE = frozenset({"failed_before"})
ADMITTED_NOT_FOUND = "not_found"


class ItemCounts(msgspec.Struct, kw_only=True):
    """``items`` of the summary.

    Every item of SOURCE that was met is in exactly one of succeeded, failed_now, blocked (by this run),
    unchanged (done before), failed_before (failed or blocked before and not tried again) and left.
    """

    total: int = 0
    succeeded: int = 0
    failed_now: int = 0
    failed_before: int = 0
    blocked: int = 0
    unchanged: int = 0
    skipped: int = 0
    removed: int = 0
    left: int = 0


class Summary(msgspec.Struct, kw_only=True):
    """``summary.json`` and the object of ``--json``; fields may be added, none is renamed."""

    exit_code: int = ExitCode.OK
    reason: str = ""
    source: str
    output: str
    backend: str
    model: str
    items: ItemCounts
    errors: dict[str, int]
    skipped: dict[str, int]
    requests: int = 0
    retries: int = 0
    refused: int = 0
    in_doubt: list[str]
    usage: Usage = Usage()
    cost_usd: float | None = None
    bytes_uploaded: int = 0
    wall_seconds: float = 0.0
    started_at: str
    finished_at: str
    bottleneck: Bottleneck = Bottleneck()
    stages: dict[str, StageUse] = {}
    """By stage."""
    quotas: dict[str, dict[str, Quota]] = {}
    """By model and quota: the limits learnt, and the calls refused."""
    retries_by_cause: dict[str, dict[str, int]] = {}
    """By stage and cause; refusals for quota are in ``quotas``."""
    loop_lag_ms: LagMs = LagMs()
    loop_busy_share: float = 0.0


def nothing_done(*, exit_code: int, reason: str, source: str, at: str) -> Summary:
    """The summary of a run that could not begin."""
    return Summary(
        exit_code=exit_code,
        reason=reason,
        source=source,
        output="",
        backend="",
        model="",
        items=ItemCounts(),
        errors={},
        skipped={},
        in_doubt=[],
        started_at=at,
        finished_at=at,
    )


class Counting(Listening):
    """The observer that counts. Requests, retries and refusals (429) are those of generate calls.

    Of items that have a line, requests are their number and their retries: every call after an item's first.
    """

    def __init__(self, *, limited: bool = False) -> None:
        """``limited``: the exit code speaks of done items and of those chosen by ``--limit`` alone."""
        self._limited = limited
        self._bad_rows = 0
        self.items = ItemCounts()
        self.errors: Counter[str] = Counter()
        self.skipped: dict[str, int] = {}
        self.requests = self.retries = self.refused = 0
        self.bytes_uploaded = 0
        self.usage = Usage()
        self.read_to_end = False
        super().__init__(
            {
                ItemAdmitted: self._admitted,
                ItemCommitted: self._committed,
                CallSent: self._sent,
                CallEnded: self._ended,
                BytesUploaded: self._uploaded,
                SourceRead: self._source_read,
            }
        )

    def _sent(self, event: CallSent) -> None:
        if event.route == Route.GENERATE:
            self.requests += 1

    def _ended(self, event: CallEnded) -> None:
        if event.status == 429 and event.route == Route.GENERATE:
            self.refused += 1

    def _uploaded(self, event: BytesUploaded) -> None:
        self.bytes_uploaded += event.size_bytes

    def _source_read(self, event: SourceRead) -> None:
        self.read_to_end = True
        self.skipped = event.skipped
        self.items.skipped = sum(event.skipped.values())

    def _admitted(self, event: ItemAdmitted) -> None:
        decision = event.decision
        if decision == "beyond_limit":
            return
        self.items.total += 1
        if decision in ADMITTED_UNCHANGED:
            self.items.unchanged += 1
        elif decision in ADMITTED_FAILED_BEFORE:
            self.items.failed_before += 1
        elif decision == ADMITTED_NOT_FOUND:
            self._bad_rows += 1
            self.items.failed_now += 1
            self.errors["missing_file"] += 1
        else:
            self.items.left += 1

    def _committed(self, event: ItemCommitted) -> None:
        self.items.left -= 1
        self.retries += max(0, event.attempts - 1)
        if event.status == Status.SUCCEEDED:
            self.items.succeeded += 1
        elif event.status == Status.BLOCKED:
            self.items.blocked += 1
        else:
            self.items.failed_now += 1
        self._bad_rows += event.stage == "manifest"
        if event.kind:
            self.errors[event.kind] += 1
        self.usage += Usage(
            prompt_tokens=event.prompt_tokens,
            output_tokens=event.output_tokens,
            thoughts_tokens=event.thoughts_tokens,
            cached_tokens=event.cached_tokens,
            total_tokens=event.total_tokens,
        )

    def correct(self, *, total: int, succeeded: int, left: int) -> None:
        """Take in what a survey of all of SOURCE found: items, how many have a succeeded line, how many have none."""
        items = self.items
        items.total = max(items.total, total)
        items.left = max(items.left, left)
        now = items.succeeded + items.failed_now + items.blocked + items.left
        # not more than there is room for: what changed and is left may have a line of a time before it changed
        items.unchanged = max(items.unchanged, min(succeeded - items.succeeded, items.total - now))
        items.failed_before = max(0, items.total - now - items.unchanged)

    def exit_code(self) -> int:
        """The exit code of a run that nothing has stopped."""
        items = self.items
        bad = items.failed_now + items.blocked
        bad += -self._bad_rows if self._limited else items.failed_before
        return ExitCode.SOME_FAILED if bad else ExitCode.OK

    def summary(
        self,
        *,
        source: str,
        output: str,
        backend: str,
        model: str,
        in_doubt: list[str],
        removed: int,
        started_at: datetime,
        finished_at: datetime,
    ) -> Summary:
        """What is known now, as the summary of a run that nothing has stopped."""
        self.items.removed = removed
        return Summary(
            exit_code=self.exit_code(),
            reason=self.sentence(),
            source=source,
            output=output,
            backend=backend,
            model=model,
            items=self.items,
            errors=dict(self.errors.most_common()),
            skipped=self.skipped,
            requests=self.requests,
            retries=self.retries,
            refused=self.refused,
            in_doubt=in_doubt,
            usage=self.usage,
            bytes_uploaded=self.bytes_uploaded,
            wall_seconds=round((finished_at - started_at).total_seconds(), 3),
            started_at=timestamp(started_at),
            finished_at=timestamp(finished_at),
        )

    def sentence(self) -> str:
        """One sentence about the items."""
        items = self.items
        bad = items.failed_now + items.failed_before + items.blocked
        good = items.succeeded + items.unchanged
        if not items.total:
            return "there was nothing to send: SOURCE holds no images or videos that were asked for"
        return f"{good} of {items.total} items succeeded" + (f", {bad} failed or were blocked" if bad else "")


def write_summary(path: Path, summary: Summary) -> None:
    """Write ``summary.json`` whole or not at all; blocking. Raises ``OSError``."""
    replace_file(path, msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
