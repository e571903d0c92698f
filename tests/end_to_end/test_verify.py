"""``pipeline verify`` through the real command: what it says, its exit codes, and the run after a repair."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support import generated
from tests.support.processes import by_key, emulator, pipeline, run, start


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Six pictures."""
    return generated.pictures(tmp_path / "media", 6)


def test_damage_is_told_mended_and_only_what_was_lost_is_paid_again(media: Path, tmp_path: Path) -> None:
    """0 on a sound folder, 1 on a damaged one, 0 after the repair; the next run asks for the lost line only."""
    output = tmp_path / "run"
    with emulator('describe = "brief"') as server:
        assert run(media, output, base_url=server.base_url).exit_code == 0
        sound = pipeline("verify", output)
        assert (sound.exit_code, "all well" in sound.stdout) == (0, True), sound.stdout
        damaged = bytearray((output / "results.jsonl").read_bytes())
        damaged[damaged.index(b"\n") + 3] = 0
        (output / "results.jsonl").write_bytes(damaged)
        refused = run(media, output, base_url=server.base_url)
        assert refused.exit_code == 5
        assert "pipeline verify" in refused.stderr
        told = pipeline("verify", output)
        assert told.exit_code == 1
        assert "line 2 (byte " in told.stdout
        assert "--repair" in told.stdout
        mended = pipeline("verify", output, "--repair", "--json").summary
        assert (mended["exit_code"], mended["repaired"], mended["lines"]) == (0, True, 5)
        assert Path(mended["damaged_original"]).read_bytes() == damaged
        again = run(media, output, base_url=server.base_url)
        assert (again.exit_code, again.summary["requests"]) == (0, 1)
        assert len(by_key(output)) == 6
    assert pipeline("verify", output).exit_code == 0


def test_what_a_kill_leaves_behind(media: Path, tmp_path: Path) -> None:
    """After kill -9 the folder is told about as it is, mended, and the run goes on from there."""
    output = tmp_path / "run"
    with emulator('describe = "brief"\n[[fault]]\nkind = "hang"\nroute = "generate"\nafter = 3') as server:
        process = start("run", media, "-o", output, "--base-url", server.base_url, "--concurrency", 3)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if (output / "results.jsonl").exists() and (output / "results.jsonl").read_bytes().count(b"\n") == 3:
                break
            time.sleep(0.02)
        held = pipeline("verify", output)
        assert held.exit_code == 4, held.stderr
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert pipeline("verify", output, "--repair").exit_code == 0
    assert pipeline("verify", output, "--json").summary["lines"] == 3
    with emulator('describe = "brief"') as server:
        ended = run(media, output, base_url=server.base_url)
        assert (ended.exit_code, ended.summary["requests"]) == (0, 3), ended.stderr


def test_folders_that_are_none(tmp_path: Path) -> None:
    """A missing folder and one that no run has made are mistakes of usage; lost results need a human."""
    for path in (tmp_path / "nowhere", tmp_path):
        ended = pipeline("verify", path)
        assert (ended.exit_code, ended.stderr.count("\n")) == (2, 1), ended.stderr
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "ledger.sqlite3").write_bytes(b"")
    ended = pipeline("verify", tmp_path, "--repair")
    assert ended.exit_code == 5
    assert "results.jsonl is gone" in ended.stderr
