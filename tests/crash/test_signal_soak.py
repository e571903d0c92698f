"""SIGTERM and SIGINT over and over in one job: every answer that was paid is on the disk, none is paid twice."""

import json
import random
import signal
import time
from pathlib import Path

import pytest

from tests.support.processes import by_key, emulator, lines, run, start

PLAN = """
describe = "brief"
[latency]
generate = [0.05, 0.4]
"""
IN_FLIGHT = 32
GRACE_SECONDS = 20
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.mark.parametrize("times", [4, pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_signals_at_any_moment(tmp_path: Path, times: int) -> None:
    """Each run is told to end at a moment of its own; at each end lines equal paid answers, and none is in doubt."""
    chance = random.Random(1)
    items = 150 * times
    source, output = tmp_path / "items.jsonl", tmp_path / "run"
    source.write_text("".join(json.dumps({"key": f"k{n}", "prompt": f"p{n}"}) + "\n" for n in range(items)))
    with emulator(PLAN) as server:
        options = ("--base-url", server.base_url, "--concurrency", IN_FLIGHT, "--grace", GRACE_SECONDS, "--json")
        done = 0
        for turn in range(times):
            process = start("run", source, "-o", output, *options)
            until = time.monotonic() + 60
            while server.ledger()["paid_answers"] <= done and time.monotonic() < until:
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 0.6))
            process.send_signal(SIGNALS[turn % 2])
            stdout, stderr = process.communicate(timeout=GRACE_SECONDS)
            assert process.returncode == 128 + SIGNALS[turn % 2], stderr
            assert json.loads(stdout)["in_doubt"] == []
            before, done = done, server.ledger()["paid_answers"]
            assert before < done == len(lines(output)) == len(by_key(output)) < items
        ended = run(source, output, base_url=server.base_url)
        assert ended.exit_code == 0, ended.stderr
        assert len(by_key(output)) == server.ledger()["paid_answers"] == items
