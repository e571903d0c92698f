"""What a run leaves for others to read."""

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from pipeline.clock import timestamp
from pipeline.commands.status import live_figures
from pipeline.ledger.sqlite import open_sqlite_ledger
from pipeline.report.live import PROGRESS, Live, Rate, read_live
from pipeline.results.run_folder import LEDGER
from tests.support.builders import NOW


@pytest.mark.parametrize("text", [None, "", "{", "{}", '{"updated_at": 5}', "\ud800"])
def test_nothing_that_can_be_read(text: str | None) -> None:
    """Whatever stands there, status goes on without it."""
    assert read_live(text) is None


def test_rate() -> None:
    """Of the last minute: what was before does not count."""
    rate = Rate()
    assert rate.per_second(0, at=0.0) == 0.0
    assert rate.per_second(20, at=10.0) == 2.0
    seen = [rate.per_second(20 + 5 * n, at=10.0 + n) for n in range(1, 121)]
    assert seen[0] == pytest.approx(25 / 11)
    assert seen[-1] == pytest.approx(5.0)


@pytest.mark.parametrize(("old_seconds", "shown"), [(1, True), (59, True), (61, False)])
async def test_figures_of_a_killed_run_grow_old(tmp_path: Path, old_seconds: int, shown: bool) -> None:
    """A run that is on renews them; the ones that a killed run has left are soon not shown for the next one's."""
    live = Live(
        updated_at=timestamp(NOW),
        started_at=timestamp(NOW),
        done=1,
        failed=0,
        left=2,
        items_per_second=1.0,
        requests_per_minute=60.0,
        in_flight=1,
        held_by=None,
        requests=1,
        retries=0,
        refused=0,
        bytes_uploaded=0,
    )
    ledger = open_sqlite_ledger(tmp_path / LEDGER, endpoint="e", key_hash="k", warn=print)
    async with ledger as opened:
        await opened.learn(PROGRESS, msgspec.json.encode(live).decode(), NOW)
        seen = live_figures(tmp_path, NOW + timedelta(seconds=old_seconds))
    assert seen == (live if shown else None)
