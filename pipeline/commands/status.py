"""``pipeline status``: where a run folder stands, also while a run is going on."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline.commands.tell import tell, tell_json
from pipeline.errors import UsageError
from pipeline.ledger.api import SOURCE_NAME, SOURCE_TOTAL
from pipeline.ledger.peek import doubts, learnt
from pipeline.plain_text import printable
from pipeline.report.live import PROGRESS, Live, read_live
from pipeline.report.sentences import held_back, limits
from pipeline.report.summary import Summary
from pipeline.results.reading import Standing, standing
from pipeline.results.results_file import NAME
from pipeline.results.run_folder import LEDGER, SUMMARY

OF_LAST_RUN: Final = (
    *("exit_code", "reason", "finished_at", "wall_seconds", "requests", "retries", "refused", "bottleneck", "stages"),
    *("quotas", "retries_by_cause", "loop_lag_ms", "loop_busy_share"),
)
"""What of the last run's summary is told."""

OLD: Final = timedelta(seconds=60)
"""Figures older than this are of a run that was killed: one that is on renews them every few seconds."""


def status_command(run_folder: Path, *, as_json: bool) -> None:
    """Tell it. Raises ``UsageError`` where there is no run folder."""
    if not os.path.isfile(run_folder / NAME):  # noqa: PTH113 - it answers no where pathlib raises
        raise UsageError(f"{run_folder} is no run folder: `pipeline run SOURCE -o {run_folder}` makes one")
    stands = standing(run_folder, doubts=doubts)
    last = last_summary(run_folder)
    live = live_figures(run_folder, datetime.now(UTC)) if stands.run_is_on else None
    if as_json:
        tell_json(as_object(run_folder, stands, last, live))
        return
    for sentence in sentences(run_folder, stands, last, live):
        tell(sentence)


def live_figures(run_folder: Path, now: datetime) -> Live | None:
    """What the run that is on has left last, None where that is too old to be its own."""
    live = read_live(learnt(run_folder / LEDGER, PROGRESS))
    return live if live and now - datetime.fromisoformat(live.updated_at) < OLD else None


def last_summary(run_folder: Path) -> Summary | None:
    """The summary of the last run that ended, None where there is none that can be read."""
    try:
        return msgspec.json.decode((run_folder / SUMMARY).read_bytes(), type=Summary)
    except (OSError, ValueError):
        return None


def left(run_folder: Path, stands: Standing, last: Summary | None) -> int | None:
    """Items that the last run left, or that have no line yet while one is on or after one was killed.

    None until SOURCE has been read once.
    """
    if last is not None and not stands.run_is_on and is_newest(run_folder / SUMMARY, run_folder / NAME):
        return last.items.left
    total = learnt(run_folder / LEDGER, SOURCE_TOTAL)
    if total is None:
        return None
    return max(0, int(total) - stands.succeeded - stands.blocked - sum(stands.failed.values()))


def is_newest(summary: Path, results: Path) -> bool:
    """Whether no line was written since the summary: a killed run leaves that of the run before it."""
    try:
        return summary.stat().st_mtime_ns >= results.stat().st_mtime_ns
    except OSError:
        return True


def as_object(run_folder: Path, stands: Standing, last: Summary | None, live: Live | None) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "output": printable(str(run_folder)),
        "source": learnt(run_folder / LEDGER, SOURCE_NAME) or (last.source if last else None),
        "run_is_on": stands.run_is_on,
        "done": stands.succeeded,
        "blocked": stands.blocked,
        "failed": stands.failed,
        "retryable": stands.retryable,
        "emulated": stands.emulated,
        "left": left(run_folder, stands, last),
        "in_doubt": stands.in_doubt,
        "usage": msgspec.to_builtins(stands.usage),
        "cost_usd": None,
        "last_run": {name: getattr(last, name) for name in OF_LAST_RUN} if last else None,
        "live": live,
    }


def sentences(run_folder: Path, stands: Standing, last: Summary | None, live: Live | None) -> list[str]:
    """The same for a person."""
    state = "a run is going on" if stands.run_is_on else "no run is going on"
    told = [f"{run_folder}: {state}", f"  done      {stands.succeeded:,}"]
    failed = sum(stands.failed.values())
    if failed:
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(stands.failed.items()))
        told.append(f"  failed    {failed:,} ({kinds}); {stands.retryable:,} of them run again by themselves")
    if stands.blocked:
        told.append(f"  blocked   {stands.blocked:,}")
    without = left(run_folder, stands, last)
    told.append("  left      not known before SOURCE has been read" if without is None else f"  left      {without:,}")
    if stands.in_doubt:
        told.append(f"  in doubt  {len(stands.in_doubt):,} (perhaps billed without an answer)")
    told.append(f"  tokens    {stands.usage.total_tokens:,}")
    if live:
        now, *seen = of_now(live)
        told += [f"  now       {now}", *(f"            {each}" for each in seen)]
    if last:
        told.append(f"  last run  exit {last.exit_code}, {last.finished_at}: {last.reason}")
        if not live:
            told += [f"            {each}" for each in (*held_back(last.bottleneck), *limits(last.quotas))]
    return told


def of_now(live: Live) -> list[str]:
    """A run that is on, for a person."""
    figures = (
        f"{live.items_per_second:.1f} items a second, {live.requests_per_minute:.0f} requests a minute, "
        f"{live.in_flight} in flight, {live.refused} refused; loop lag p99 {live.loop_lag_ms.p99:.0f} ms"
    )
    return [figures, *held_back(live.bottleneck), *limits(live.quotas)]
