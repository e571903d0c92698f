"""Opening a run folder of many lines, short form of ``tests/benchmarks/million_lines.py``: ratios, never seconds."""

from pathlib import Path

import pytest

from pipeline.results.run_folder import LEDGER
from tests.benchmarks.million_lines import bare_scan, measured_open, write_results

LINES = 50_000
REBUILT_AT_MOST = 12.0
"""Times the bare scan's CPU seconds; about 5 where nothing else uses the processor."""
KNOWN_AT_MOST = 3.0
PEAK_MEGABYTES = 110
"""The file is half as large, and the interpreter with the project's modules takes 60."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose every item is done, without a ledger."""
    path = tmp_path_factory.mktemp("many") / "run"
    write_results(path, LINES)
    return path


def test_opening_costs_a_few_bare_scans_without_the_ledger_and_hardly_one_with_it(folder: Path) -> None:
    """The ledger is rebuilt in a bounded multiple of the time a bare scan takes, and in bounded memory."""
    bare = min(bare_scan(folder / "results.jsonl").cpu_seconds for _ in range(3))
    (folder / LEDGER).unlink(missing_ok=True)
    rebuilt = measured_open(folder)
    known = min(measured_open(folder).cpu_seconds for _ in range(2))
    assert rebuilt.cpu_seconds < REBUILT_AT_MOST * bare
    assert known < KNOWN_AT_MOST * bare
    assert known < rebuilt.cpu_seconds / 2, "the ledger was not used"
    assert rebuilt.peak_bytes < PEAK_MEGABYTES * 1_000_000
