"""Full and broken disks under the real command: exit 5 with one sentence, whole lines, and nothing paid for twice."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.crash.strace import tracing_allowed  # noqa: F401 - a fixture
from tests.support import generated
from tests.support.processes import KEY, PYTHON, ROOT, Emulator, Ended, by_key, emulator, environment, lines, run

ITEMS = 24
PLAN = 'describe = "brief"\n[latency]\ngenerate = [0.05, 0.3]'
AT_MOST_SECONDS = 10.0


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures, no two alike."""
    return generated.pictures(tmp_path_factory.mktemp("media"), ITEMS)


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where the system's temporary files are, for the command."""
    path = tmp_path / "temporary"
    path.mkdir()
    return path


def run_under(
    wrapper: Sequence[object], media: Path, output: Path, server: Emulator, temporary: Path, *options: object
) -> Ended:
    """The run as the child of ``wrapper``."""
    arguments = ["run", media, "-o", output, "--base-url", server.base_url, "--json", "--concurrency", 8, *options]
    began = time.monotonic()
    done = subprocess.run(
        [*map(str, wrapper), PYTHON, "-m", "pipeline", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        env=environment(KEY, TMPDIR=str(temporary)),
    )
    return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - began, 0)


def injected(path: Path, call: str, fault: str) -> list[str]:
    """strace so that the calls of this name that are about this file fail."""
    options = ["-e", f"trace={call}", "-e", f"inject={call}:{fault}", "-P", str(path), "-o", os.devnull]
    return ["strace", "-f", "-qq", "--seccomp-bpf", *options]


def assert_stopped(ended: Ended, output: Path, name: str) -> None:
    """Exit 5 in time, a sentence that names the file and what to do, no traceback, no half line."""
    assert ended.exit_code == 5, ended.stderr
    assert ended.seconds < AT_MOST_SECONDS
    assert "Traceback" not in ended.stderr
    assert "Error" not in ended.stderr
    said = [line for line in ended.stderr.splitlines() if "run again" in line]
    assert said, ended.stderr
    assert name in said[-1], ended.stderr
    if (output / "results.jsonl").exists():
        lines(output)


def assert_completes(media: Path, output: Path, server: Emulator, temporary: Path, *, items: int = ITEMS) -> None:
    """With a disk that works again the run ends well, and no item was answered twice."""
    ended = run(media, output, base_url=server.base_url, TMPDIR=str(temporary))
    assert ended.exit_code == 0, ended.stderr
    assert len(by_key(output)) == items
    assert server.ledger()["paid_answers"] == items
    assert not list(output.glob("salvage-*"))
    assert not list(temporary.glob("pipeline-salvage-*"))


FAULTS = {
    "results full": ("results.jsonl", "write", "error=ENOSPC:when=3+"),
    "results over quota": ("results.jsonl", "write", "error=EDQUOT:when=2+"),
    "results not writable": ("results.jsonl", "write", "error=EIO:when=1+"),
    "results full for a moment": ("results.jsonl", "write", "error=ENOSPC:when=3"),
    "results take less than they say": ("results.jsonl", "write", "retval=100:when=2"),
    "results can't be synced": ("results.jsonl", "fdatasync", "error=EIO:when=4"),
    "results can't be synced at first": ("results.jsonl", "fdatasync", "error=EIO:when=1"),
    "results can't be looked at": ("results.jsonl", "fstat,newfstatat", "error=EIO:when=1+"),
    "ledger full": ("ledger.sqlite3", "pwrite64", "error=ENOSPC:when=1+"),
    "ledger can't be synced": ("ledger.sqlite3", "fdatasync", "error=EIO:when=1+"),
    "ledger's log full at first": ("ledger.sqlite3-wal", "pwrite64", "error=ENOSPC:when=1+"),
    "ledger's log full": ("ledger.sqlite3-wal", "pwrite64", "error=ENOSPC:when=60+"),
    "ledger's log over quota": ("ledger.sqlite3-wal", "pwrite64", "error=EDQUOT:when=80+"),
    "ledger's log not writable": ("ledger.sqlite3-wal", "pwrite64", "error=EIO:when=100+"),
    "log full at first": ("run.log", "write", "error=ENOSPC:when=1+"),
    "log full at last": ("run.log", "write", "error=ENOSPC:when=2+"),
    "log not writable": ("run.log", "write", "error=EIO:when=2"),
    "log takes less than it says": ("run.log", "write", "retval=10:when=2"),
    "summary full": ("summary.tmp", "write", "error=ENOSPC:when=1+"),
    "summary can't be synced": ("summary.tmp", "fsync", "error=EIO:when=1+"),
    "summary takes less than it says": ("summary.tmp", "write", "retval=100:when=1"),
    "summary can't be named": ("summary.tmp", "rename", "error=ENOSPC:when=1+"),
}


@pytest.mark.usefixtures("tracing_allowed")
@pytest.mark.parametrize("name", FAULTS)
def test_a_disk_that_fails_for_one_file(media: Path, tmp_path: Path, temporary: Path, name: str) -> None:
    """Whatever file it hits: exit 5, whole lines; the next run completes, and every item was paid for once."""
    file, call, fault = FAULTS[name]
    output = tmp_path / "run"
    output.mkdir(mode=0o700)
    with emulator(PLAN) as server:
        ended = run_under(injected(output / file, call, fault), media, output, server, temporary)
        assert_stopped(ended, output, file.removesuffix("-wal").removesuffix("tmp"))
        if ended.stdout:
            assert ended.summary["exit_code"] == 5
        assert_completes(media, output, server, temporary)


@pytest.mark.usefixtures("tracing_allowed")
def test_results_that_can_not_be_read(media: Path, tmp_path: Path, temporary: Path) -> None:
    """A broken sector met while the ledger is rebuilt stops the run before anything is sent, and nothing is cut."""
    output = tmp_path / "run"
    with emulator(PLAN) as server:
        assert run(media, output, base_url=server.base_url).exit_code == 0
        before = (output / "results.jsonl").read_bytes()
        (output / "ledger.sqlite3").unlink()
        wrapper = injected(output / "results.jsonl", "pread64", "error=EIO:when=1+")
        ended = run_under(wrapper, media, output, server, temporary)
        assert_stopped(ended, output, "results.jsonl")
        assert (output / "results.jsonl").read_bytes() == before
        assert_completes(media, output, server, temporary)


@pytest.mark.usefixtures("tracing_allowed")
def test_a_short_write_of_the_ledger_costs_no_answer(media: Path, tmp_path: Path, temporary: Path) -> None:
    """A ledger whose disk takes less than it says is found out or survives; the results don't care."""
    output = tmp_path / "run"
    output.mkdir(mode=0o700)
    with emulator(PLAN) as server:
        wrapper = injected(output / "ledger.sqlite3-wal", "pwrite64", "retval=100:when=70")
        ended = run_under(wrapper, media, output, server, temporary)
        assert ended.exit_code in (0, 5), ended.stderr
        assert "Traceback" not in ended.stderr
        assert_completes(media, output, server, temporary)


@pytest.mark.usefixtures("tracing_allowed")
def test_a_slow_disk_holds_nothing_up(media: Path, tmp_path: Path, temporary: Path) -> None:
    """Each sync of the results takes 50 ms more: 20 items a second go on as they would, and the event loop is free."""
    output = tmp_path / "run"
    output.mkdir(mode=0o700)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"key": f"k{n}", "prompt": f"p{n}"}) + "\n" for n in range(80)))
    with emulator(PLAN) as server:
        wrapper = injected(output / "results.jsonl", "fdatasync", "delay_enter=50000")
        ended = run_under(wrapper, rows, output, server, temporary, "--rpm", 1200)
    assert ended.exit_code == 0, ended.stderr
    assert len(by_key(output)) == 80
    assert ended.summary["wall_seconds"] < 1.5 * 80 / 20
    assert ended.summary["loop_lag_ms"]["p99"] < 50


WITH_SMALL_FILES = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("limit_bytes", [40_000, 150_000])
def test_files_that_may_not_grow(media: Path, tmp_path: Path, temporary: Path, limit_bytes: int) -> None:
    """A true short write, then a refusal, of whichever file reaches the limit first."""
    output = tmp_path / "run"
    with emulator(PLAN) as server:
        ended = run_under([PYTHON, "-c", WITH_SMALL_FILES, limit_bytes], media, output, server, temporary)
        assert_stopped(ended, output, str(output))
        assert_completes(media, output, server, temporary)


@contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """A file system of 1 MB at ``path``; skips where this process may not mount one."""
    path.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(path)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("free_bytes", [100_000, 250_000, 400_000])
def test_a_disk_that_fills_up(tmp_path: Path, media: Path, temporary: Path, free_bytes: int) -> None:
    """On a disk without room even for salvaged answers they are kept elsewhere; with room the run completes."""
    disk = tmp_path / "disk"
    with small_disk(disk), emulator(PLAN) as server:
        output = disk / "run"
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(1_000_000 - free_bytes))
        ended = run_under([], media, output, server, temporary)
        assert_stopped(ended, output, str(output))
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert_completes(media, output, server, temporary)
