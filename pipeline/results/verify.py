"""Checks a run folder that no run holds, and mends what can be rebuilt; the damaged original is kept."""

import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Protocol

from anyio.to_thread import run_sync

from pipeline.errors import StopForHuman
from pipeline.ledger.api import LedgerFactory, Mark, Offset
from pipeline.results import durable, results_file, salvage
from pipeline.results.check import Findings, LedgerCheck, LineCheck, Problem, lines_of
from pipeline.results.compaction import compact
from pipeline.results.reconcile import reconcile
from pipeline.results.results_file import ResultsFile
from pipeline.results.run_folder import LEDGER, LOCK, RunFolder
from pipeline.whole import check_length, disk_trouble

CHECKED_FOR_MODE = ("results.jsonl", "superseded.jsonl", "ledger.sqlite3", "run.log", "summary.json", "run.lock")
LOST_LINES = "damaged_line", "torn_tail"


class Look(Protocol):
    """What a ledger says, read-only (``ledger.peek.Look``)."""

    @property
    def offset(self) -> Offset | None:
        """How much of which file it has taken in."""
        ...

    @property
    def marks(self) -> Iterator[Mark]:
        """Current lines in the order of the file."""
        ...


LookAt = Callable[[Path], AbstractContextManager[Look | str]]
"""Looks into the ledger at a path, or says why that can't be done (``ledger.peek.look``)."""


class Verified:
    """What a check has found."""

    def __init__(self, findings: Findings, lines: int, keys: int) -> None:
        self.findings = findings
        self.lines = lines
        self.keys = keys

    @property
    def problems(self) -> list[Problem]:
        """Nothing where all is well."""
        return self.findings.problems()


class Verifier:
    """A run folder held for checking. Made by ``hold``."""

    def __init__(self, path: Path, results: ResultsFile, *, look: LookAt) -> None:
        self._path = path
        self._results = results
        self._look = look

    def check(self) -> Verified:
        """Read everything, change nothing; blocking."""
        findings = Findings()
        _check_modes(self._path, findings)
        for kept in salvage.files_in(self._path):
            findings.add("salvage", f"answers wait in {kept}: the next run takes them in")
        lines = LineCheck(findings)
        with disk_trouble(self._results.path), self._look(self._path / LEDGER) as ledger:
            if isinstance(ledger, str):
                findings.add("ledger_unusable", f"{LEDGER} {ledger}: it can be rebuilt from results.jsonl")
                compared = None
            else:
                if not self._is_of_this_file(ledger.offset):
                    findings.add("ledger_stale", f"{LEDGER} speaks of another state of results.jsonl")
                compared = LedgerCheck(ledger.marks, findings)
            for line in lines_of(self._results.read_range(0, self._results.end)):
                lines.see(line)
                if compared:
                    compared.see(line)
            if compared:
                compared.end()
        return Verified(findings, lines.lines, lines.keys)

    def _is_of_this_file(self, offset: Offset | None) -> bool:
        now = self._results.offset()
        if offset is None:
            return now.size_bytes == 0
        return (offset.inode, offset.size_bytes) == (now.inode, now.size_bytes)

    async def repair(self, found: Verified, *, open_ledger: LedgerFactory, stamp: str) -> Path | None:
        """Mend what ``check`` has found; where the damaged original is kept, None where no line was damaged."""
        kept = None
        with disk_trouble(self._results.path):
            await run_sync(_mend_modes, self._path)
            if any(kind in found.findings for kind in LOST_LINES):
                kept = await run_sync(self._rewrite, stamp)
            async with open_ledger(self._path / LEDGER) as ledger:
                await ledger.rebuild(iter(()))  # so that all of the file is read again, whatever the ledger thought
                await reconcile(self._results, ledger)
                await compact(RunFolder(self._path, self._results, ledger), source_was_read=False)
        return kept

    def _rewrite(self, stamp: str) -> Path:
        """A new results.jsonl of the whole lines; the old one keeps its bytes under another name."""
        results, temporary = self._results, results_file.temporary(self._path)
        kept = results.path.with_name(f"{results.path.name}.damaged-{stamp}")
        fd = results_file.open_regular(temporary, os.O_APPEND | os.O_TRUNC)
        try:
            _copy_whole_lines(results, fd)
            results_file.lock(fd, temporary)
            kept.hardlink_to(results.path)
            durable.sync_folder(self._path)
            temporary.replace(results.path)
        except BaseException:
            os.close(fd)
            raise
        results.replace_with(fd)
        durable.sync_folder(self._path)
        return kept


@asynccontextmanager
async def hold(path: Path, *, look: LookAt, stamp: Callable[[], str]) -> AsyncIterator[Verifier]:
    """Hold the folder as a run does. Raises ``RunLocked``, and ``StopForHuman`` where there is nothing to check."""
    with ExitStack() as held:
        lock = await run_sync(results_file.open_locked, path / LOCK)
        held.callback(os.close, lock)
        if not (path / results_file.NAME).exists() and (path / LEDGER).exists():
            raise StopForHuman(
                f"{path / results_file.NAME} is gone: restore it from a copy; to begin anew, delete {LEDGER} beside it"
            )
        results = held.enter_context(closing(await run_sync(ResultsFile, path, stamp)))
        yield Verifier(path, results, look=look)


def _copy_whole_lines(results: ResultsFile, fd: int) -> None:
    length = 0
    for line in lines_of(results.read_range(0, results.end)):
        if line.mark:
            for chunk in results.read_range(line.offset, line.offset + line.size_bytes):
                durable.write_all(fd, chunk)
            if not line.is_ended:
                durable.write_all(fd, b"\n")
            length += line.mark.size_bytes
    check_length(fd, length)
    durable.sync_data(fd)


def _check_modes(path: Path, findings: Findings) -> None:
    if path.stat().st_mode & stat.S_IWOTH:
        findings.add("open_to_all", f"anybody may write to {path}")
    for file in _too_open(path):
        findings.add("mode", f"others may read or write {file.name} (mode {stat.S_IMODE(file.stat().st_mode):04o})")


def _mend_modes(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & stat.S_IWOTH:
        path.chmod(mode & ~stat.S_IWOTH)
    for file in _too_open(path):
        file.chmod(durable.PRIVATE_FILE)


def _too_open(path: Path) -> list[Path]:
    files = (path / name for name in CHECKED_FOR_MODE)
    return [file for file in files if file.exists() and not file.is_symlink() and file.stat().st_mode & 0o077]
