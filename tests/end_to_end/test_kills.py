"""kill -9 at moments spread over the span in which answers arrive: nothing is lost, hardly anything paid twice."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.support import generated
from tests.support.processes import KEY, Emulator, by_key, emulator, pipeline, run, start

ITEMS = 500
IN_FLIGHT = 32
KILLS = 20
PLAN = """
describe = "brief"
[latency]
generate = [0.05, 0.4]
"""


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures, no two alike."""
    return generated.pictures(tmp_path_factory.mktemp("media"), ITEMS)


def line_count(output: Path) -> int:
    """Whole lines so far."""
    path = output / "results.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed_at(lines: int, media: Path, output: Path, server: Emulator) -> int:
    """Start a run, kill it when ``lines`` lines are there; returns how many there were in the end."""
    process = start(
        "run", media, "-o", output, "--base-url", server.base_url, "--concurrency", IN_FLIGHT, "--quiet", key=KEY
    )
    until = time.monotonic() + 60
    while line_count(output) < lines and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return line_count(output)


def test_twenty_kills_and_a_last_run(media: Path, tmp_path: Path) -> None:
    """Each run is killed a little further on; in the end every key has one line, and few were paid again."""
    with emulator(PLAN) as server:
        left = [killed_at(1 + kill * ITEMS // (KILLS + 1), media, tmp_path / "run", server) for kill in range(KILLS)]
        assert sum(1 <= lines < ITEMS for lines in left) >= 15
        ended = run(media, tmp_path / "run", base_url=server.base_url)
        assert ended.exit_code == 0, ended.stderr
        found = by_key(tmp_path / "run")
        assert len(found) == ITEMS
        assert {line["status"] for line in found.values()} == {"succeeded"}
        paid = server.ledger()["paid_answers"]
    assert ITEMS <= paid <= ITEMS + KILLS * IN_FLIGHT
    again = paid - ITEMS
    assert again > 0, "no kill hit a call in flight: the test proves nothing"


def test_items_in_flight_at_a_kill_are_named_in_doubt(media: Path, tmp_path: Path) -> None:
    """The run after a kill names the items whose calls were out, and no more than were in flight.

    Until then ``status`` tells of them, and of what is left now, not of what the last summary left.
    """
    with emulator(PLAN) as server:
        run(media, tmp_path / "run", "--limit", 5, base_url=server.base_url)
        lines = killed_at(100, media, tmp_path / "run", server)
        stands = json.loads(pipeline("status", tmp_path / "run", "--json").stdout)
        assert (stands["done"], stands["left"]) == (lines, ITEMS - lines)
        ended = run(media, tmp_path / "run", base_url=server.base_url)
        by_item = server.ledger()["paid_by_item"]
    twice = sum(answers - 1 for answers in by_item.values())
    doubted = ended.summary["in_doubt"]
    assert twice <= len(doubted) <= IN_FLIGHT
    assert doubted == stands["in_doubt"] != []
