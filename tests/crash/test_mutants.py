"""The guards of the commit protocol, taken away one at a time: for each, a test that is there must fail.

Each fault is built into a copy of the package, and the test that is named for it runs against that copy. Those that
the power-loss explorer must find are in ``mutants.py``.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.processes import ROOT, environment


class Mutant(NamedTuple):
    """In ``file`` the text ``sound`` becomes ``faulty``, and ``test`` must notice."""

    name: str
    file: str
    sound: str
    faulty: str
    test: str


FOLDER = "tests/rooms/test_results_folder.py::"

MUTANTS = [
    Mutant(
        "acknowledged before it is written",
        "pipeline/results/stage.py",
        "            start = self._results.end\n",
        "            start = self._results.end\n"
        "            for entry in batch:\n"
        "                self._on_committed(entry.outcome)\n",
        FOLDER + "test_nothing_is_acknowledged_before_it_is_synced",
    ),
    Mutant(
        "lines not synced",
        "pipeline/results/results_file.py",
        "        durable.sync_data(self._fd)\n        self.end += len(data)\n",
        "        self.end += len(data)\n",
        FOLDER + "test_nothing_is_acknowledged_before_it_is_synced",
    ),
    Mutant(
        "torn tail not cut",
        "pipeline/results/results_file.py",
        "            os.ftruncate(self._fd, scan.good_end)\n            self.end = scan.good_end\n",
        "",
        FOLDER + "test_a_torn_tail_at_every_byte",
    ),
    Mutant(
        "no lock",
        "pipeline/results/results_file.py",
        "            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "            pass\n",
        FOLDER + "test_one_folder_is_opened_once",
    ),
    Mutant(
        "retryDelay believed",
        "pipeline/gemini/wire.py",
        "    return Delay(min(seconds, RETRY_DELAY_MAX_SECONDS), ",
        "    return Delay(seconds, ",
        "tests/gemini/test_wire.py::test_retry_delay_is_clamped",
    ),
    Mutant(
        "intents forgotten",
        "pipeline/gemini/intents.py",
        "        await self._ledger.intend(",
        "        _ = (",
        "tests/end_to_end/test_kills.py::test_items_in_flight_at_a_kill_are_named_in_doubt",
    ),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, to be spoilt."""
    place = tmp_path_factory.mktemp("mutants")
    for name in ("pipeline", "tests", "configs"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", place)
    return place


def pytest_on(copy: Path, *tests: str) -> "subprocess.CompletedProcess[str]":
    """Run these tests against the copy."""
    return subprocess.run(
        [sys.executable, "-B", "-m", "pytest", "-n", "0", "-q", "-x", f"--basetemp={copy / 'temporary'}", *tests],
        check=False,
        capture_output=True,
        text=True,
        cwd=copy,
        env=environment(None, PYTHONPATH=str(copy)),
        timeout=100,
    )


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_killed(copy: Path, mutant: Mutant) -> None:
    """The named test fails with the fault, by an assertion of its own or by what the fault makes the product do."""
    path = copy / mutant.file
    sound = path.read_text("utf-8")
    assert sound.count(mutant.sound) == 1, f"{mutant.file} has changed: say anew what the fault is"
    path.write_text(sound.replace(mutant.sound, mutant.faulty), "utf-8")
    try:
        done = pytest_on(copy, mutant.test)
    finally:
        path.write_text(sound, "utf-8")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr


@pytest.mark.soak
def test_the_sound_copy_passes(copy: Path) -> None:
    """Without a fault the same tests pass in the same place, so it is the fault that they notice."""
    done = pytest_on(copy, *sorted({mutant.test for mutant in MUTANTS}))
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
