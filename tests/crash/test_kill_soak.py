"""kill -9 two hundred times in one long job: nothing lost, and every answer paid again was named in doubt.

Twenty kills of a smaller job are in ``tests/end_to_end/test_kills.py``.
"""

import json
import os
import random
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from tests.support.processes import Emulator, by_key, emulator, run, start

ITEMS = 3000
IN_FLIGHT = 32
KILLS = 200
SIZES = {1000: 0.94, 100_000: 0.05, 2_000_000: 0.01}
"""Bytes of an answer, and its share of the items; a line holds its answer twice, as text and as data."""
PLAN = """
describe = "brief"
[latency]
generate = [0.3, 0.8]
"""


def manifest(path: Path, chance: random.Random) -> Path:
    """Items without media whose schema asks for long answers."""
    sizes = chance.choices(list(SIZES), list(SIZES.values()), k=ITEMS)
    rows = [
        {"key": f"k{n:04d}", "prompt": f"k{n:04d}", "schema": {"type": "string", "minLength": size}}
        for n, size in enumerate(sizes)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def whole_lines(output: Path) -> int:
    """How many results there are."""
    results = output / "results.jsonl"
    return results.read_bytes().count(b"\n") if results.exists() else 0


def doubted_calls(output: Path) -> set[tuple[str, int]]:
    """Key and moment of every call that a killed run left open."""
    with closing(sqlite3.connect(output / "ledger.sqlite3")) as ledger:
        return set(ledger.execute("SELECT key, started_at_us FROM intent"))


async def killed(source: Path, output: Path, server: Emulator, more_lines: int) -> int:
    """Kill a run some lines after its first new one; returns how many lines there are then."""
    before = await anyio.to_thread.run_sync(whole_lines, output)
    process = start("run", source, "-o", output, "--base-url", server.base_url, "--concurrency", IN_FLIGHT, "--quiet")
    results = output / "results.jsonl"
    size, lines = results.stat().st_size if results.exists() else 0, before
    with anyio.move_on_after(60):
        while lines < before + more_lines and process.poll() is None:
            await anyio.sleep(0.002)
            if results.exists() and results.stat().st_size > size:
                with results.open("rb") as file:
                    file.seek(size)
                    new = file.read()
                size += len(new)
                lines += new.count(b"\n")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return whole_lines(output)


async def quiet(server: Emulator) -> dict[str, int]:
    """How often each item was paid, once calls of the dead have ended at the server."""
    while (ledger := server.ledger())["in_flight"] > 1:  # noqa: ASYNC110  # one is this question
        await anyio.sleep(0.02)
    return {item["prompt"]: item["answers"] for item in ledger["paid"]}


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_two_hundred_kills(tmp_path: Path) -> None:
    """The job ends with one line of each item, few were paid again, and those were named."""
    chance = random.Random(1)
    source, output = manifest(tmp_path / "items.jsonl", chance), tmp_path / "run"
    doubted: set[tuple[str, int]] = set()
    inside = 0
    with emulator(PLAN) as server:
        lost = worst = 0
        for _ in range(KILLS):
            lines = await killed(source, output, server, chance.randrange(1, 3 * ITEMS // (2 * KILLS)))
            inside += 1 <= lines < ITEMS
            lost_before, lost = lost, sum((await quiet(server)).values()) - lines
            worst = max(worst, lost - lost_before)
            doubted |= doubted_calls(output)
        ended = run(source, output, base_url=server.base_url)
        assert ended.exit_code == 0, ended.stderr
        found = by_key(output)
        assert len(found) == ITEMS
        assert {line["status"] for line in found.values()} == {"succeeded"}
        again = {key: answers - 1 for key, answers in (await quiet(server)).items() if answers > 1}
    named = Counter(key for key, _ in doubted)
    twice = sum(again.values())
    print(f"\n{KILLS} kills, {inside} inside, {lines} lines after the last one")
    print(f"{twice} answers paid again, at most {worst} for one kill; {named.total()} calls named in doubt")
    assert inside >= 0.8 * KILLS
    assert twice > 0, "no kill hit a call in flight: this proves nothing"
    assert worst <= IN_FLIGHT
    assert all(named[key] >= answers for key, answers in again.items())
    assert named.total() <= 1.2 * twice + IN_FLIGHT
