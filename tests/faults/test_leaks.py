"""What a run holds (memory, descriptors, threads, tasks) stays as it is, however many items and faults go by."""

import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.service import fault, service
from tests.support import generated
from tests.support.processes import KEY, PYTHON, ROOT, environment, lines
from tests.support.sampled import Sample, samples

FILES_A_FOLDER = 1000
CALLS = ["generate", "upload_start", "file_get"]
SHARE_OF_FAULTS = {
    "503": 0.2,
    "500": 0.1,
    "reset_before": 0.1,
    "reset_after": 0.1,
    "502_html": 0.1,
    "truncated_json": 0.1,
    "cut_upload": 0.1,
    "lost_finalize": 0.1,
    "vanish": 0.1,
}
ROUTES = {"truncated_json": ["generate", "file_get"], "cut_upload": None, "lost_finalize": None, "vanish": None}
PLAN = '[processing_seconds]\n"video/*" = 0.2'

FLAT_BYTES = 20_000_000
"""Memory may be this much above or below its middle."""
FLAT_COUNT = 15
"""Typical of the last third of a run may be so many more descriptors or tasks than of the first."""


class Soak(NamedTuple):
    """How long a run is, how much of it is warm-up, and how many calls meet a fault."""

    items: int
    warm_up: float
    fault_rate: float


def faults(rate: float) -> list[str]:
    """Of every common kind, ``rate`` together."""
    plan = []
    for kind, share in SHARE_OF_FAULTS.items():
        routes = ROUTES.get(kind, CALLS)
        more = {"route": routes} if routes else {"attempt": 1} if kind == "vanish" else {}
        plan.append(fault(kind, rate=rate * share, **more))
    return plan


def media(folder: Path, count: int) -> Path:
    """``count`` tiny pictures, no two alike, among them one clip in a hundred, which must be waited for."""
    picture, clip = generated.image("JPEG", 1, side=24), generated.video("mp4", 1)
    for number in range(count):
        place = folder / f"{number // FILES_A_FOLDER:03d}"
        place.mkdir(parents=True, exist_ok=True)
        mark = number.to_bytes(4, "big")
        if number % 100 == 50:
            (place / f"{number:06d}.mp4").write_bytes(clip + (12).to_bytes(4, "big") + b"free" + mark)
        else:
            (place / f"{number:06d}.jpg").write_bytes(picture + mark)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc")
@pytest.mark.parametrize("via", ["files", "auto"])
@pytest.mark.parametrize(
    "soak",
    [
        pytest.param(Soak(items=1500, warm_up=0.4, fault_rate=0.05), id="short"),
        pytest.param(
            Soak(items=100_000, warm_up=0.35, fault_rate=0.01),
            id="100k",
            marks=[pytest.mark.soak, pytest.mark.timeout(3600)],
        ),
    ],
)
def test_nothing_is_held_for_longer_than_it_is_needed(tmp_path: Path, soak: Soak, via: str) -> None:
    """Exit 0 or 1, a line for each item, and after the warm-up neither memory nor anything else grows."""
    folder = media(tmp_path / "media", soak.items)
    with service(*faults(soak.fault_rate), plan=PLAN) as server:
        command = [PYTHON, "-m", "tests.support.sampled", tmp_path / "samples", "run", folder, "-o", tmp_path / "run"]
        # few connections, so that how many of them are open hides no leak and looks like none
        options = ["--base-url", server.base_url, "--via", via, "--quiet", "--json"]
        options += ["--concurrency", "16", "--uploads", "8"]
        ended = subprocess.run(
            [*map(str, command), *options], cwd=ROOT, env=environment(KEY), capture_output=True, check=False
        )
        struck = server.ledger()["faults"]
    assert ended.returncode in (0, 1), ended.stderr.decode()
    assert len({line["key"] for line in lines(tmp_path / "run")}) == soak.items
    uploads = {"cut_upload", "lost_finalize"} if via == "auto" else set()
    assert set(SHARE_OF_FAULTS) - set(struck) <= uploads | {"vanish"}, struck
    taken = samples(tmp_path / "samples")
    steady = taken[int(len(taken) * soak.warm_up) : -1]
    memory = [sample.memory_bytes for sample in steady]
    assert max(memory) - min(memory) <= 2 * FLAT_BYTES
    third = len(steady) // 3
    for held in (descriptors, tasks):
        assert typical(steady[-third:], held) <= typical(steady[:third], held) + FLAT_COUNT
    assert max(sample.threads for sample in steady) <= max(sample.threads for sample in taken[: -len(steady)]) + 1


def descriptors(sample: Sample) -> int:
    """Files and connections."""
    return sample.descriptors


def tasks(sample: Sample) -> int:
    """Of the event loop."""
    return sample.tasks


def typical(taken: list[Sample], held: Callable[[Sample], int]) -> float:
    """The median."""
    return statistics.median(held(sample) for sample in taken)
