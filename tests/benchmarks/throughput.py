"""How much of a bare aiohttp loop's throughput the whole command reaches: alternating, medians, ratios first.

``python -m tests.benchmarks.throughput --items 5000 --rounds 5 [--via auto] [--uvloop]``. The server is a process of
its own (``lean_server``), and its CPU is told: a saturated server would flatter every ratio.
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support import generated
from tests.support.processes import KEY, PYTHON, ROOT, environment

FILE_BYTES = 20_000
WITH_UVLOOP = [PYTHON, "-m", "pipeline"]
WITHOUT_UVLOOP = [PYTHON, "-c", "import sys; sys.modules['uvloop'] = None; from pipeline.cli import main; main()"]


class Measured(NamedTuple):
    """One run of one contestant."""

    items_per_second: float
    cpu_microseconds_per_item: float


@contextmanager
def server(*, uvloop: bool) -> Iterator[tuple[str, list[float]]]:
    """A lean server; its CPU seconds are in the list once it has ended."""
    command = [PYTHON, "-m", "tests.benchmarks.lean_server", *(["--uvloop"] if uvloop else [])]
    cpu_seconds: list[float] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), cpu_seconds
        process.terminate()
        cpu_seconds.append(json.loads(process.stdout.readline())["cpu_seconds"])


def media(folder: Path, count: int) -> Path:
    """``count`` pictures of 20 kB, no two alike."""
    picture = generated.image("JPEG", 1)
    chance = random.Random(5)
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:05d}.jpg").write_bytes(picture + chance.randbytes(FILE_BYTES - len(picture)))
    return folder


def timed(command: list[str], items: int, **more: str) -> Measured:
    """The whole process: start, work, end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    ended = subprocess.run(command, cwd=ROOT, env=environment(KEY, **more), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode:
        sys.exit(f"{command}: {ended.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(items / seconds, cpu / items * 1e6)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--via", choices=["files", "auto"], default="files")
    parser.add_argument("--uvloop", action="store_true")
    given = parser.parse_args()
    loops = {"BENCHMARK_UVLOOP": "1"} if given.uvloop else {}
    command = WITH_UVLOOP if given.uvloop else WITHOUT_UVLOOP
    results: dict[str, list[Measured]] = {"bare loop": [], "pipeline": []}
    work = Path(tempfile.mkdtemp())
    try:
        folder = media(work / "media", given.items)
        with server(uvloop=given.uvloop) as (url, server_cpu):
            began = time.perf_counter()
            for number in range(given.rounds):
                bare = [PYTHON, "-m", "tests.benchmarks.bare_loop", url, str(folder)]
                ours = [*command, "run", str(folder), "-o", str(work / f"run{number}")]
                ours += ["--base-url", url, "--via", given.via, "--quiet"]
                results["bare loop"].append(timed(bare, given.items, **loops))
                results["pipeline"].append(timed(ours, given.items))
            span = time.perf_counter() - began
    finally:
        shutil.rmtree(work)
    report(results, busy=server_cpu[0] / span)


def report(results: dict[str, list[Measured]], *, busy: float) -> None:
    """Ratios first, then what they are made of."""
    ratios = [
        ours.items_per_second / bare.items_per_second
        for ours, bare in zip(results["pipeline"], results["bare loop"], strict=True)
    ]
    print(f"pipeline / bare File API loop: {statistics.median(ratios):.2f} of its items a second", end="")
    print(f" ({min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} rounds)")
    for name, rounds in results.items():
        speed = statistics.median(r.items_per_second for r in rounds)
        cpu = statistics.median(r.cpu_microseconds_per_item for r in rounds)
        print(f"{name:<10} {speed:8.0f} items/s {cpu:8.0f} us of CPU an item")
    print(f"server: busy {busy:.0%} of one core; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
