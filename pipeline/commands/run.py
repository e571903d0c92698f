"""``pipeline run``: a command line becomes a run, and its summary an exit code."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Final

import anyio
import msgspec

from pipeline.clock import timestamp
from pipeline.commands.tell import tell, tell_json
from pipeline.compose import run
from pipeline.config import api_key, environment, required_key, run_spec
from pipeline.errors import ExitCode, PipelineError
from pipeline.events import Observer
from pipeline.report.progress import Progress
from pipeline.report.sentences import held_back, trouble
from pipeline.report.summary import Summary, nothing_done
from pipeline.settings import CommandLine
from pipeline.spec import RunSpec

EMULATOR_KEY: Final = "no-key"
"""The emulator takes any key; a real one is never shown to it."""


def run_command(line: CommandLine, *, as_json: bool) -> int:
    """Do the run; the summary goes to stderr as sentences and, if asked for, to stdout as JSON.

    Returns the exit code. Raises ``PipelineError`` where the run could not begin; with ``as_json`` a summary of
    nothing but its exit code and reason has then been told.
    """
    try:
        summary = _run_to_its_end(line)
    except PipelineError as error:
        if as_json:
            now = timestamp(datetime.now(UTC))
            told = nothing_done(exit_code=error.exit_code, reason=str(error), source=line.source, at=now)
            tell_json(told)
        raise
    if not line.quiet:
        for sentence in sentences(summary):
            tell(sentence, err=True)
    elif summary.exit_code not in (ExitCode.OK, ExitCode.SOME_FAILED):
        tell(f"pipeline: {summary.reason}", err=True)
    if as_json:
        tell_json(summary)
    return summary.exit_code


def _run_to_its_end(line: CommandLine) -> Summary:
    spec = run_spec(line, environment(), datetime.now().astimezone())
    if line.emulator:
        key, warning = EMULATOR_KEY, None
    else:
        key, warning = required_key(environment(), emulator_hint=True), api_key(environment())[1]
    with Progress(quiet=spec.quiet) as progress:
        if warning:
            progress.say(warning)
        observers = [] if spec.quiet else [progress]
        return anyio.run(_run, spec, key, observers, backend_options={"use_uvloop": has_uvloop()})


async def _run(spec: RunSpec, key: str, observers: Sequence[Observer]) -> Summary:
    async with AsyncExitStack() as stack:
        if spec.selection.emulated:
            from pipeline.emulator import Emulator

            emulator = await stack.enter_async_context(Emulator())
            spec = msgspec.structs.replace(
                spec, endpoint=msgspec.structs.replace(spec.endpoint, base_url=emulator.base_url)
            )
        return await run(spec, api_key=key, observers=observers, watch_signals=True)


def has_uvloop() -> bool:
    """Whether the faster event loop is installed (extra ``speed``)."""
    return find_spec("uvloop") is not None


def sentences(summary: Summary) -> list[str]:
    """The summary for a person."""
    items = summary.items
    told = [f"{summary.output}: {summary.reason}"]
    counts = [
        f"{number} {name}"
        for number, name in (
            (items.succeeded, "succeeded now"),
            (items.unchanged, "done before"),
            (items.failed_now, "failed now"),
            (items.failed_before, "failed before"),
            (items.blocked, "blocked"),
            (items.left, "left"),
            (items.skipped, "files passed over"),
            (items.removed, "no longer in SOURCE"),
        )
        if number
    ]
    if counts:
        told.append("  " + ", ".join(counts))
    if summary.errors:
        told.append("  errors: " + ", ".join(f"{kind} {number}" for kind, number in summary.errors.items()))
    if summary.in_doubt:
        told.append(f"  in doubt (perhaps billed without an answer): {len(summary.in_doubt)}, see summary.json")
    if summary.exit_code == ExitCode.USAGE:
        return told  # nothing was sent
    told.append(
        f"  {summary.requests} requests, {summary.retries} retries, {summary.refused} refused; "
        f"{summary.usage.total_tokens:,} tokens; {summary.bytes_uploaded / 1e6:.1f} MB uploaded; "
        f"{summary.wall_seconds:.1f} s"
    )
    told += [
        f"  {seen}" for seen in (*held_back(summary.bottleneck), *trouble(summary.quotas, summary.retries_by_cause))
    ]
    return told
