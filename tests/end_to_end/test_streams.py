"""Standard streams that are closed, full, or hung up: what a run does and how it ends does not depend on them."""

import os
import pty
import signal
import time
from pathlib import Path

import pytest

from tests.support import generated
from tests.support.processes import KEY, PYTHON, ROOT, by_key, emulator, environment, in_shell

ITEMS = 60


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures, no two alike."""
    return generated.pictures(tmp_path_factory.mktemp("media"), ITEMS)


@pytest.mark.parametrize(
    ("script", "exit_code"),
    [
        ('"$@" <&-', 0),
        ('"$@" >&-', 0),
        ('"$@" 2>&-', 0),
        ('"$@" <&- >&- 2>&-', 0),
        ('"$@" 2>/dev/full', 0),
        ('"$@" | true; exit ${PIPESTATUS[0]}', 0),
        ('"$@" --set run.nope=1 | true; exit ${PIPESTATUS[0]}', 2),
        ('"$@" >/dev/full', 5),
    ],
)
def test_streams_that_take_nothing(media: Path, tmp_path: Path, script: str, exit_code: int) -> None:
    """The exit code is the run's own; a stdout that should have held the summary and is full is worth a 5."""
    ended = in_shell(script, "run", media, "-o", tmp_path / "run", "--emulator", "--json", "--limit", 2)
    assert ended.exit_code == exit_code, ended.stderr
    assert "Traceback" not in ended.stderr
    if exit_code != 2:
        assert len(by_key(tmp_path / "run")) == 2  # and nothing else was written into it


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_for_a_full_disk(arguments: list[str]) -> None:
    """It is no bug."""
    ended = in_shell('"$@" >/dev/full', *arguments)
    assert (ended.exit_code, ended.stderr) == (5, "pipeline: stdout can't be written (No space left on device)\n")


def test_a_terminal_that_hangs_up(media: Path, tmp_path: Path) -> None:
    """SIGHUP comes and the terminal takes no word more: the run drains, and no answer is lost."""
    output = tmp_path / "run"
    with emulator('describe = "brief"\n[latency]\ngenerate = 0.4') as server:
        command = [PYTHON, "-m", "pipeline", "run", media, "-o", output, "--base-url", server.base_url]
        child, terminal = pty.fork()
        if child == 0:
            os.chdir(ROOT)
            os.execve(PYTHON, [*map(str, command), "--concurrency", "8"], environment(KEY))  # noqa: S606
        os.set_blocking(terminal, False)
        until = time.monotonic() + 60
        results = output / "results.jsonl"
        while time.monotonic() < until and not (results.exists() and results.read_bytes().count(b"\n") >= 16):
            try:
                os.read(terminal, 65536)
            except BlockingIOError:
                time.sleep(0.02)
        os.close(terminal)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
        assert 16 < len(by_key(output)) == server.ledger()["paid_answers"] < ITEMS
    assert (output / "summary.json").exists()
