"""``pipeline verify``: is every line whole, no key there twice, the ledger in line; and ``--repair``."""

import os
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from pipeline.commands.tell import tell, tell_json
from pipeline.errors import ExitCode, UsageError
from pipeline.ledger import peek
from pipeline.ledger.api import RunLedger
from pipeline.ledger.sqlite import open_sqlite_ledger
from pipeline.plain_text import printable
from pipeline.results.results_file import NAME
from pipeline.results.run_folder import LEDGER, LOCK
from pipeline.results.verify import Verified, hold


class Report(msgspec.Struct, kw_only=True):
    """What the command has to tell, and what ``--json`` prints."""

    exit_code: int
    output: str
    lines: int
    keys: int
    problems: list[dict[str, Any]]
    repaired: bool = False
    damaged_original: str | None = None


def verify_command(run_folder: Path, *, repair: bool, as_json: bool) -> int:
    """Check, mend if asked to, and tell; returns the exit code. Raises ``PipelineError`` where it can't be checked."""
    # os.path answers no where pathlib raises
    if not any(os.path.isfile(run_folder / name) for name in (NAME, LEDGER, LOCK)):  # noqa: PTH113
        raise UsageError(f"there is no run folder {run_folder}: `pipeline run SOURCE -o {run_folder}` makes one")
    report = anyio.run(_verify, run_folder, repair)
    if as_json:
        tell_json(report)
    else:
        for sentence in sentences(report):
            tell(sentence)
    return report.exit_code


async def _verify(run_folder: Path, repair: bool) -> Report:  # noqa: FBT001 - anyio.run passes by position
    async with hold(run_folder, look=peek.look, stamp=_stamp) as verifier:
        found = await anyio.to_thread.run_sync(verifier.check)
        if not repair or not found.problems:
            return _report(run_folder, found, ExitCode.SOME_FAILED if found.problems else ExitCode.OK)
        kept = await verifier.repair(found, open_ledger=_open_ledger, stamp=_stamp())
        left = await anyio.to_thread.run_sync(verifier.check)
    if left.problems:
        return _report(run_folder, left, ExitCode.NEEDS_HUMAN)
    report = _report(run_folder, found, ExitCode.OK)
    report.lines, report.keys, report.repaired = left.lines, left.keys, True
    report.damaged_original = printable(str(kept)) if kept else None
    return report


def _report(run_folder: Path, found: Verified, exit_code: int) -> Report:
    problems = [msgspec.to_builtins(problem) for problem in found.problems]
    output = printable(str(run_folder))
    return Report(exit_code=exit_code, output=output, lines=found.lines, keys=found.keys, problems=problems)


def sentences(report: Report) -> list[str]:
    """The report for a person: a line for each problem, and what to do."""
    told = [printable(problem["sentence"]) for problem in report.problems]
    counted = f"{report.output}: {report.lines:,} whole lines of {report.keys:,} keys"
    if report.repaired:
        kept = f"; the damaged original is {report.damaged_original}" if report.damaged_original else ""
        return [*told, f"{counted}, mended{kept}"]
    if report.exit_code == ExitCode.NEEDS_HUMAN:
        return [*told, f"{counted}; what is said above could not be mended: see to it, then try again"]
    if told:
        return [*told, f"{counted}; mend it with: pipeline verify {report.output} --repair"]
    return [f"{counted}, all well"]


def _open_ledger(path: Path) -> AbstractAsyncContextManager[RunLedger]:
    """The ledger without an account: uploads are none of this command's business."""
    return open_sqlite_ledger(path, endpoint="", key_hash="", warn=lambda _: None)


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
