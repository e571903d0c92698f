"""Clocks that jump: a laptop that slept past the life of its files, a clock set back, days of 23 and 25 hours."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.clock import ManualClock
from pipeline.compose import run
from pipeline.config import deadline
from pipeline.emulator import Emulator, Plan
from pipeline.events import CallEnded, Event
from pipeline.gemini.api import Route
from pipeline.report.summary import Summary
from pipeline.settings import RunSection
from pipeline.spec import EndpointSpec, GenerationSpec, RunSpec, SourceSpec, UploadSpec
from tests.support import generated
from tests.support.processes import KEY, by_key

HOUR = 3600.0


class Jump:
    """An observer that moves the clocks once, when a call of ``route`` has ended."""

    def __init__(self, route: Route, jump: Callable[[], None]) -> None:
        self._route = route
        self._jump = jump
        self.jumped = False

    def notify(self, event: Event) -> None:
        if isinstance(event, CallEnded) and event.route is self._route and not self.jumped:
            self.jumped = True
            self._jump()


async def run_with_a_jump(tmp_path: Path, route: Route, *, ours: float, theirs: float) -> tuple[Summary, Emulator]:
    """Six videos, one at a time through generation; after the first call of ``route`` the clocks jump."""
    folder = tmp_path / "media"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.mp4").write_bytes(generated.video("mp4", number))
    clock = ManualClock(datetime.now(UTC))
    async with Emulator(Plan(describe="brief", processing_seconds={"video/*": 0.2})) as emulator:

        def jump() -> None:
            clock.advance(ours)
            emulator.clock.advance(theirs)

        spec = RunSpec(
            output=tmp_path / "run",
            source_name=str(folder),
            source=SourceSpec(path=folder),
            endpoint=EndpointSpec(base_url=emulator.base_url, backend="127.0.0.1"),
            upload=UploadSpec(via="files"),
            generation=GenerationSpec(concurrency=1),
        )
        observer = Jump(route, jump)
        summary = await run(spec, api_key=KEY, observers=[observer], clock=clock)
        assert observer.jumped
    assert "file_list" not in emulator.ledger()["calls"]
    return summary, emulator


@pytest.mark.parametrize("route", [Route.UPLOAD_CHUNK, Route.FILE_GET, Route.GENERATE])
async def test_a_sleep_past_the_life_of_the_files(tmp_path: Path, route: Route) -> None:
    """72 h pass in one instant: files are uploaded again at most once each, none is sent expired, all are answered."""
    summary, emulator = await run_with_a_jump(tmp_path, route, ours=72 * HOUR, theirs=72 * HOUR)
    assert summary.exit_code == 0, summary.reason
    assert len(by_key(tmp_path / "run")) == 6
    ledger = emulator.ledger()
    assert ledger["paid_answers"] == 6
    assert 6 < len(ledger["uploads"]) <= 12
    assert ledger["calls"]["generate"] == {"200": 6}


@pytest.mark.parametrize(("ours", "theirs"), [(-5 * HOUR, 0.0), (0.0, 72 * HOUR)])
async def test_clocks_that_disagree(tmp_path: Path, ours: float, theirs: float) -> None:
    """Ours is set back, or runs days behind the service's: every item has its answer, and the run ends soon."""
    began = time.monotonic()
    summary, emulator = await run_with_a_jump(tmp_path, Route.FILE_GET, ours=ours, theirs=theirs)
    assert summary.exit_code == 0, summary.reason
    assert len(by_key(tmp_path / "run")) == 6
    assert emulator.ledger()["paid_answers"] == 6
    assert len(emulator.ledger()["uploads"]) <= 12
    assert time.monotonic() - began < 15


async def test_a_clock_days_ahead_fails_its_items_for_now(tmp_path: Path) -> None:
    """Ours says that every new file has expired: one upload more, then a failure that the next run tries again."""
    summary, emulator = await run_with_a_jump(tmp_path, Route.FILE_GET, ours=72 * HOUR, theirs=0.0)
    assert summary.exit_code == 1, summary.reason
    errors = [line["error"] for line in by_key(tmp_path / "run").values() if line["error"]]
    assert {(error["stage"], error["kind"], error["retryable"]) for error in errors} == {
        ("generation", "file_gone", True)
    }
    assert len(emulator.ledger()["uploads"]) <= 12


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time of a place whose clocks go forward at 2:00 on 29 March and back at 3:00 on 25 October 2026."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def hours_left(now_utc: str, at: str) -> float:
    """Hours from ``now_utc`` to the deadline ``at``."""
    now = datetime.fromisoformat(now_utc).replace(tzinfo=UTC).astimezone()
    moment = deadline(RunSection(deadline=at), now)
    assert moment is not None
    return (moment - now) / timedelta(hours=1)


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("now_utc", "at", "hours"),
    [
        ("2026-06-01T20:00", "06:30", 8.5),
        ("2026-03-28T23:30", "06:30", 5.0),  # 0:30 to 6:30 in the night of 23 hours
        ("2026-10-24T22:30", "06:30", 7.0),  # 0:30 to 6:30 in the night of 25 hours
        ("2026-03-28T23:30", "02:30", 1.0),  # a time that doesn't exist: surely not later
        ("2026-10-24T23:30", "02:30", 1.0),  # a time that comes twice: its first
        ("2026-10-25T00:45", "02:30", 0.75),  # 2:45 summer time: the second 2:30
        ("2026-10-25T01:15", "02:30", 0.25),  # 2:15 winter time: the second 2:30, not the first, which is over
        ("2026-10-25T01:45", "02:30", 23.75),  # 2:45 winter time: tomorrow's
        ("2026-03-28T22:30", "23:30", 23.0),  # now: the next, in a day of 23 hours
    ],
)
def test_a_deadline_is_the_next_time_that_a_wall_clock_shows(now_utc: str, at: str, hours: float) -> None:
    """On days that change the clock too; never in the past."""
    assert hours_left(now_utc, at) == hours
