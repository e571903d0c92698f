"""The real command killed entering a system call that changes something: the next run completes it."""

import itertools
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.strace import CHANGING_CALLS, kill_at, traced
from tests.support.processes import KEY, Emulator, by_key, emulator, run

ITEMS = 50
IN_FLIGHT = 8
PLAN = """
describe = "brief"
[latency]
generate = [0.005, 0.02]
"""
SAMPLE = [("fdatasync", 2), ("fdatasync", 5), ("pwrite64", 60), ("ftruncate", 2)]
"""Moments early, in the middle and late; strace counts the calls of each thread by themselves."""


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    """An emulator."""
    with emulator(PLAN) as running:
        yield running


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty items."""
    path = tmp_path_factory.mktemp("source") / "items.jsonl"
    path.write_text("".join(json.dumps({"key": f"k{n}", "prompt": f"prompt {n}"}) + "\n" for n in range(ITEMS)))
    return path


def is_killed(call: str, number: int, server: Emulator, manifest: Path, output: Path) -> bool:
    """Kill a run there, let the next one complete it, and judge; whether it lived long enough to be killed."""
    server.reset()
    where = ["--base-url", server.base_url, "--concurrency", IN_FLIGHT, "--quiet"]
    killed = traced(kill_at(call, number), "-m", "pipeline", "run", manifest, "-o", output, *where, key=KEY)
    assert killed.returncode in (0, -signal.SIGKILL), killed.stderr
    ended = run(manifest, output, base_url=server.base_url)
    assert ended.exit_code == 0, ended.stderr
    assert {line["status"] for line in by_key(output).values()} == {"succeeded"}
    assert len(by_key(output)) == ITEMS
    again = {item["prompt"] for item in server.ledger()["paid"] if item["answers"] > 1}
    assert len(again) <= IN_FLIGHT
    assert {prompt.replace("prompt ", "k") for prompt in again} <= set(ended.summary["in_doubt"])
    return killed.returncode != 0


@pytest.mark.usefixtures("tracing_allowed")
@pytest.mark.parametrize("point", SAMPLE, ids=str)
def test_killed_somewhere(server: Emulator, manifest: Path, tmp_path: Path, point: tuple[str, int]) -> None:
    """Four moments."""
    assert is_killed(*point, server, manifest, tmp_path / "run"), "it was never killed"


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("call", CHANGING_CALLS)
def test_killed_everywhere(tracing_allowed: None, server: Emulator, manifest: Path, tmp_path: Path, call: str) -> None:
    """Every count of a call that any thread reaches."""
    points = itertools.count(1)
    kills = sum(
        1 for _ in itertools.takewhile(lambda n: is_killed(call, n, server, manifest, tmp_path / f"{n}"), points)
    )
    print(f"\n{call}: {kills} kills")
    assert kills
