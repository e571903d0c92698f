"""Adds up moments: how busy every stage was, how long items waited before it, and what held the run back."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import msgspec

from pipeline.moment import Moment
from pipeline.report.bottleneck import Blame, Bottleneck, Figures, blame, judge
from pipeline.report.refusals import Quota

STAGES: Final = ("manifest", "upload", "activation", "generation", "results")


class StageUse(msgspec.Struct, frozen=True, kw_only=True):
    """One stage over a run."""

    workers: int
    busy_share: float
    """Of its workers, over the time."""
    waiting: float
    """Items before it, on average over the time."""
    wait_seconds: float
    """How long they waited there, on average over the run's items."""


class Occupancy:
    """What the moments of a run come to, in the room of one."""

    def __init__(self, figures: Figures) -> None:
        """``figures``: the settings; what was seen is put in later."""
        self._figures = figures
        self._seconds = 0.0
        self._loop_busy_seconds = 0.0
        self._out_seconds = 0.0
        self._workers = dict.fromkeys(STAGES, 1)
        self._busy_seconds = dict.fromkeys(STAGES, 0.0)
        self._waiting_seconds = dict.fromkeys(STAGES, 0.0)
        self._blamed: defaultdict[Blame, float] = defaultdict(float)
        self._slots = 0

    def add(self, moment: Moment, *, seconds: float, loop_busy_seconds: float) -> None:
        """``moment`` stands for the ``seconds`` before it, in which the event loop worked ``loop_busy_seconds``."""
        if seconds <= 0:
            return
        self._seconds += seconds
        self._loop_busy_seconds += loop_busy_seconds
        self._out_seconds += seconds * moment.generating.in_flight
        self._slots = moment.generating.slots
        for name, stage in (
            ("manifest", moment.manifest),
            ("upload", moment.upload),
            ("activation", moment.activation),
            ("generation", moment.generation),
            ("results", moment.results),
        ):
            self._workers[name] = stage.workers
            self._busy_seconds[name] += seconds * stage.busy
            self._waiting_seconds[name] += seconds * stage.waiting
        if blamed := blame(moment, loop_busy_share=loop_busy_seconds / seconds):
            self._blamed[blamed] += seconds

    @property
    def loop_busy_share(self) -> float:
        """The part of the time in which the event loop worked, or waited for a CPU."""
        return round(self._loop_busy_seconds / self._seconds, 3) if self._seconds else 0.0

    def stages(self, items: int) -> dict[str, StageUse]:
        """Every stage; ``items`` went through (Little's law makes waiting times of queues)."""
        seconds = self._seconds or 1.0
        return {
            name: StageUse(
                workers=self._workers[name],
                busy_share=round(self._busy_seconds[name] / seconds / self._workers[name], 3),
                waiting=round(self._waiting_seconds[name] / seconds, 1),
                wait_seconds=round(self._waiting_seconds[name] / max(1, items), 3),
            )
            for name in STAGES
        }

    def bottleneck(self, *, requests: int, quotas: Mapping[str, Mapping[str, Quota]]) -> Bottleneck:
        """What held the run back, which sent so many ``requests``."""
        figures = msgspec.structs.replace(
            self._figures,
            latency_seconds=self._out_seconds / max(1, requests),
            slots=self._slots,
            quotas=quotas,
        )
        return judge(self._blamed, of_seconds=self._seconds, figures=figures)
