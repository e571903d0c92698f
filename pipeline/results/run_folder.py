"""The run folder: made or checked, locked, recovered and brought in line with its ledger, then open for one run."""

import os
import stat
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from anyio.to_thread import run_sync

from pipeline.clock import Clock
from pipeline.errors import StopForHuman, UsageError
from pipeline.ledger.api import SOURCE_NAME, Identities, LedgerFactory, RunLedger
from pipeline.results import results_file
from pipeline.results.filesystem import why_locks_fail
from pipeline.results.reconcile import reconcile
from pipeline.results.results_file import ResultsFile
from pipeline.spec import RunSpec
from pipeline.whole import disk_trouble, is_no_room

LOCK = "run.lock"
LEDGER = "ledger.sqlite3"
SUMMARY = "summary.json"

_EVER = datetime(1970, 1, 1, tzinfo=UTC)


class RunFolder:
    """An open run folder. Made by ``open_run_folder``; everything in it is this run's alone until that ends."""

    def __init__(self, path: Path, results: ResultsFile, ledger: RunLedger) -> None:
        self.path = path
        self.results = results
        self.ledger = ledger
        self.opened_at_end = results.end
        """Where this run's own lines begin in results.jsonl."""
        self.is_sound = True
        """Whether every line that was to be committed is durable, and the ledger knows it."""
        self.recovered = False
        """Whether an earlier run left something to mend: a torn tail, salvaged lines, a ledger behind the file."""

    @property
    def identities(self) -> Identities:
        """Hashes of files, for worker threads."""
        return self.ledger.identities


@asynccontextmanager
async def open_run_folder(spec: RunSpec, *, open_ledger: LedgerFactory, clock: Clock) -> AsyncIterator[RunFolder]:
    """Open the run folder of ``spec`` for one run.

    Raises ``UsageError`` (nothing was sent), ``RunLocked`` or ``StopForHuman``, all before the body begins.
    """
    path = spec.output

    def stamp() -> str:
        return clock.now().astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")

    await run_sync(prepare, path)
    with ExitStack() as held:
        with disk_trouble(path / results_file.NAME):
            lock = await run_sync(results_file.open_locked, path / LOCK)
            held.callback(os.close, lock)
            results = held.enter_context(closing(await run_sync(ResultsFile, path, stamp)))
            results_file.temporary(path).unlink(missing_ok=True)
        async with open_ledger(path / LEDGER) as ledger:
            folder = RunFolder(path, results, ledger)
            await _check_source(folder, spec)
            with disk_trouble(results.path):
                folder.recovered = await reconcile(results, ledger)
            folder.opened_at_end = results.end
            await _check_backend(folder, spec)
            await ledger.learn(SOURCE_NAME, spec.source_name, clock.now())
            yield folder


def prepare(path: Path) -> None:
    """Make the folder, or check the one that is there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        mode = path.stat().st_mode
    except FileExistsError as error:
        raise UsageError(f"{path} is a file: name a folder with --output") from error
    except OSError as error:
        if is_no_room(error):
            raise StopForHuman(f"No space left for {path}: free some, then run again") from error
        raise UsageError(f"Can't make the run folder {path} ({error.strerror}): name another with --output") from error
    if mode & stat.S_IWOTH:
        # A wrong choice of folder, not damage: hence exit 2.
        raise UsageError(f"Anybody may write to {path}: take that right away (chmod o-w) or name another with --output")
    why = why_locks_fail(path)
    if why:
        raise results_file.unlockable(path, why)


async def _check_source(folder: RunFolder, spec: RunSpec) -> None:
    """Two sources of one name must not end up in one folder by accident; a folder named by the user is his choice."""
    known = await folder.ledger.learnt(SOURCE_NAME, _EVER) or await run_sync(_source_of_summary, folder.path / SUMMARY)
    if spec.output_is_default and known not in (None, spec.source_name):
        raise UsageError(f"{folder.path} holds the results of {known}: name another run folder with --output")


async def _check_backend(folder: RunFolder, spec: RunSpec) -> None:
    if spec.selection.emulated and await folder.ledger.holds_real_lines():
        raise UsageError(f"{folder.path} holds answers of a real model: name another run folder for --emulator")


def _source_of_summary(path: Path) -> str | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Summary).source
    except (OSError, ValueError):
        return None


class _Summary(msgspec.Struct):
    source: str | None = None
