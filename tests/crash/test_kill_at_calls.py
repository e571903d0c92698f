"""Killed entering each system call that changes the run folder: nothing acknowledged is lost, and the next run ends."""

from pathlib import Path

import anyio
import pytest

from tests.crash import story
from tests.crash.oracle import judge
from tests.crash.strace import CHANGING_CALLS, kill_at, traced

FATAL = 200
"""More than the story makes calls of one kind."""

SPARSE = {"pwrite64": 11}
"""Of SQLite's many writes the short form kills at every eleventh only."""


def kills(call: str, step: int, folder: Path) -> int:
    """Kill the story entering every ``step``-th ``call``, judge what is left; how many kills there were."""
    numbers = range(1, FATAL, step)
    for number in numbers:
        story.begin(folder / str(number))
    done = traced(kill_at(call, FATAL), "-m", "tests.crash.sweep", call, FATAL, folder, *numbers)
    assert done.returncode == 0, done.stderr
    said = {int(path.stem): path.read_text().splitlines() for path in folder.glob("*.words")}
    assert said[max(said)][-1] == "ended", "the story was never told to its end"
    for number, words in sorted(said.items()):
        try:
            anyio.run(judge, folder / str(number), words)
        except BaseException as error:
            error.add_note(f"killed entering {call} number {number}, after: {words[-3:]}")
            raise
    return len(said) - 1


@pytest.mark.parametrize("call", CHANGING_CALLS)
def test_a_kill_at_calls(tracing_allowed: None, tmp_path: Path, call: str) -> None:
    """Each call of a kind is the last one once."""
    assert kills(call, SPARSE.get(call, 1), tmp_path) >= 2


@pytest.mark.soak
@pytest.mark.parametrize("call", sorted(SPARSE))
def test_a_kill_at_every_call(tracing_allowed: None, tmp_path: Path, call: str) -> None:
    """The same without leaving any out."""
    assert kills(call, 1, tmp_path) > 100
