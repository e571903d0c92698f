"""Watches over one run: how late the event loop is, how full the stages are, and what others may read of that."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import anyio
import msgspec

from pipeline.clock import Clock, monotonic, timestamp
from pipeline.errors import StopRun
from pipeline.moment import Moment
from pipeline.report.bottleneck import Figures
from pipeline.report.live import Live, Rate
from pipeline.report.loop_lag import LoopLag
from pipeline.report.occupancy import Occupancy
from pipeline.report.refusals import Refusals
from pipeline.report.summary import Counting, Summary
from pipeline.spec import RunSpec

PROBE_SECONDS: Final = 0.05
SAMPLE_SECONDS: Final = 0.25
KEEP_SECONDS: Final = 2.0
LOG_SECONDS: Final = 60.0

_SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")


class Watch:
    """Three light tasks beside a run; nothing is done for an item or a call.

    ``keep`` puts a text where ``pipeline status`` finds it, ``log`` writes a line of ``run.log``.
    """

    def __init__(
        self,
        spec: RunSpec,
        *,
        counting: Counting,
        refusals: Refusals,
        clock: Clock,
        started_at: datetime,
        keep: Callable[[str], Awaitable[None]],
        log: Callable[[str, dict[str, object]], None],
    ) -> None:
        self._counting = counting
        self._refusals = refusals
        self._clock = clock
        self._started_at = started_at
        self._keep = keep
        self._log = log
        self._lag = LoopLag(PROBE_SECONDS)
        self._occupancy = Occupancy(
            Figures(
                concurrency=spec.generation.concurrency,
                uploads=spec.upload.uploads,
                rpm=spec.quota.rpm,
                tpm=spec.quota.tpm,
            )
        )
        self._items_rate, self._requests_rate = Rate(), Rate()
        self._began = 0.0

    @asynccontextmanager
    async def over(self, read: Callable[[], Moment]) -> AsyncIterator[None]:
        """Watch while the body runs; ``read`` tells how things stand."""
        self._began = monotonic()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._probe)
            tasks.start_soon(self._sample, read)
            tasks.start_soon(self._tell, read)
            yield
            tasks.cancel_scope.cancel()

    def complete(self, summary: Summary) -> None:
        """Put in what was seen."""
        summary.bottleneck = self._occupancy.bottleneck(requests=summary.requests, quotas=self._refusals.quotas)
        summary.stages = self._occupancy.stages(self._sent())
        summary.quotas = self._refusals.quotas
        summary.retries_by_cause = self._refusals.retries_by_cause
        summary.loop_lag_ms = self._lag.percentiles()
        summary.loop_busy_share = self._occupancy.loop_busy_share

    async def _probe(self) -> None:
        while True:
            due = monotonic() + PROBE_SECONDS
            await anyio.sleep(PROBE_SECONDS)
            self._lag.add(max(0.0, monotonic() - due))

    async def _sample(self, read: Callable[[], Moment]) -> None:
        at, worked = monotonic(), work_seconds()
        while True:
            await anyio.sleep(SAMPLE_SECONDS)
            now, working = monotonic(), work_seconds()
            self._occupancy.add(read(), seconds=now - at, loop_busy_seconds=max(0.0, working - worked))
            at, worked = now, working

    async def _tell(self, read: Callable[[], Moment]) -> None:
        logged_at = monotonic()
        try:
            while True:
                live = self._live(read())
                await self._keep(msgspec.json.encode(live).decode())
                if monotonic() - logged_at >= LOG_SECONDS:
                    logged_at = monotonic()
                    self._log("progress", msgspec.structs.asdict(live))
                await anyio.sleep(KEEP_SECONDS)
        except StopRun:
            return  # the ledger has failed; those who need it will say so

    def _live(self, moment: Moment) -> Live:
        counting, items = self._counting, self._counting.items
        done = items.succeeded + items.failed_now + items.blocked
        at = monotonic() - self._began
        return Live(
            updated_at=timestamp(self._clock.now()),
            started_at=timestamp(self._started_at),
            done=done,
            failed=items.failed_now + items.blocked,
            left=items.left,
            items_per_second=round(self._items_rate.per_second(done, at=at), 2),
            requests_per_minute=round(
                60 * self._requests_rate.per_second(counting.requests - counting.refused, at=at), 1
            ),
            in_flight=moment.generating.in_flight,
            held_by=moment.generating.held_by,
            requests=counting.requests,
            retries=counting.retries,
            refused=counting.refused,
            bytes_uploaded=counting.bytes_uploaded,
            bottleneck=self._occupancy.bottleneck(requests=counting.requests, quotas=self._refusals.quotas),
            stages=self._occupancy.stages(self._sent()),
            quotas=self._refusals.quotas,
            retries_by_cause=self._refusals.retries_by_cause,
            loop_lag_ms=self._lag.percentiles(),
            loop_busy_share=self._occupancy.loop_busy_share,
        )

    def _sent(self) -> int:
        items = self._counting.items
        return items.succeeded + items.failed_now + items.blocked + items.left


def work_seconds() -> float:
    """For how long this thread has run, or waited for a CPU where the system tells that."""
    try:
        ran_ns, waited_ns, _ = _SCHEDSTAT.read_bytes().split()
    except (OSError, ValueError):
        return time.thread_time()
    return (int(ran_ns) + int(waited_ns)) / 1e9
