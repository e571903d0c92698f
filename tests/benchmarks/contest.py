"""Plays one contest: contestants take turns, each before a server of its own, and the rounds become medians."""

import random
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.benchmarks import ideal
from tests.benchmarks.measure import Contestant, Job, Run, play, server
from tests.benchmarks.report import Check, Outcome, Row
from tests.benchmarks.service import Service
from tests.support import generated


@dataclass(frozen=True, slots=True)
class Form:
    """How much is run, where, and who is told meanwhile."""

    quick: bool
    rounds: int
    work: Path
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Media:
    """Files of one size, no two alike; every ``video_every``-th is a video."""

    count: int
    size_bytes: int
    video_every: int = 0

    def write(self, folder: Path) -> Path:
        """Make them."""
        picture = generated.image("JPEG", 1)
        clip = generated.video("mp4", 1) if self.video_every else b""
        filling = random.Random(5).randbytes(self.size_bytes)
        folder.mkdir()
        for number in range(self.count):
            video = self.video_every and number % self.video_every == 0
            head = (clip if video else picture) + number.to_bytes(8, "big")
            (folder / f"{number:06d}.{'mp4' if video else 'jpg'}").write_bytes(head + filling[len(head) :])
        return folder


RoundOf = Mapping[str, Run]
Ratio = Callable[["Contest", Run, RoundOf], float]


@dataclass(frozen=True, slots=True)
class Results:
    """Every run of a contest, by contestant, in the order of the rounds."""

    contest: "Contest"
    runs: dict[str, list[Run]]

    def ratios(self, name: str) -> list[float]:
        """A contestant's, round by round."""
        rounds = [dict(zip(self.runs, each, strict=True)) for each in zip(*self.runs.values(), strict=True)]
        return [self.contest.ratio(self.contest, one[name], one) for one in rounds]

    def median(self, name: str, figure: Callable[[Run], float | None]) -> float | None:
        """A contestant's median of a figure; None where a run has none."""
        figures = [figure(run) for run in self.runs[name]]
        known = [one for one in figures if one is not None]
        return statistics.median(known) if known and len(known) == len(figures) else None

    def goodput(self, run: Run) -> float | None:
        """Where there is a quota and the run went on long enough."""
        service = self.contest.service
        return ideal.goodput(service, run.report.accepted_each_second) if service.quota else None

    def row(self, name: str) -> Row:
        """A contestant's line of the table."""

        def median(figure: Callable[[Run], float | None]) -> float:
            return self.median(name, figure) or 0.0

        return Row(
            contestant=name,
            ratios=self.ratios(name),
            cpu_ms_per_item=median(lambda run: run.cpu_ms_per_item),
            items_per_second=median(lambda run: run.items_per_second),
            seconds=median(lambda run: run.ended.seconds),
            peak_mb=median(lambda run: run.ended.peak_bytes / 1e6),
            failed=median(lambda run: run.failed),
            refused_share=median(lambda run: run.report.refused_share),
            goodput=self.median(name, self.goodput),
            server_busy_share=median(lambda run: run.report.busy_share),
            loop_lag_ms=self.median(name, lambda run: run.loop_lag_ms),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Contest:
    """One scenario."""

    name: str
    title: str
    service: Service = field(default_factory=Service)
    contestants: Sequence[Contestant]
    media: Media
    concurrency: int = 64
    uploads: int = 16
    uvloop: bool = False
    at_once: int = 1
    """Runs at the same time: 1 where the machine is what limits, more where waiting is."""
    ratio_name: str
    ratio: Ratio
    checks: Callable[[Results], list[Check]]

    def play(self, form: Form) -> Outcome:
        """All rounds."""
        place = form.work / self.name
        place.mkdir()
        media = self.media.write(place / "media")
        taking_part = [one for one in self.contestants if one.installed()]
        turns = [(number, one) for number in range(form.rounds) for one in _alternating(taking_part, number)]

        def turn(number: int, contestant: Contestant) -> Run:
            output = place / f"{number}-{contestant.program}-{contestant.via}"
            with server(self.service) as serving:
                job = Job(serving.url, media, output, self.concurrency, self.uploads, self.uvloop)
                run = play(contestant, job, self.media.count)
            shutil.rmtree(output, ignore_errors=True)
            form.tell(f"{self.name}, round {number + 1} of {form.rounds}: {contestant.name} {run.ended.seconds:.1f} s")
            return replace(run, report=serving.report)

        runs: dict[str, list[Run]] = {one.name: [] for one in taking_part}
        with ThreadPoolExecutor(self.at_once) as turning:
            for run in turning.map(lambda each: turn(*each), turns):
                runs[run.contestant].append(run)
        shutil.rmtree(place)
        results = Results(self, runs)
        return Outcome(
            name=self.name,
            title=self.title,
            ratio_name=self.ratio_name,
            rounds=form.rounds,
            rows=[results.row(name) for name in runs],
            checks=self.checks(results),
        )


def _alternating(contestants: list[Contestant], number: int) -> list[Contestant]:
    return contestants if number % 2 == 0 else contestants[::-1]
