"""What the fault tests share: an emulator that no run may ask for a list, manifests of one row a fault, and memory."""

import atexit
import functools
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.support import processes
from tests.support.processes import KEY, PYTHON, ROOT, Emulator, emulator, environment

BRIEF = 'describe = "brief"\n'


@functools.cache
def _emulator() -> Emulator:
    """One process for all tests: starting one costs as much as most tests."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(emulator(BRIEF))


@contextmanager
def service(*faults: str, plan: str = "") -> Iterator[Emulator]:
    """An emulator with ``faults`` that knows of nothing yet and whose clock is right.

    Asserts in the end that nothing asked it for ``files.list``, which no run depends on.
    """
    server = _emulator()
    now = datetime.fromisoformat(json.loads(server.call("clock"))["now"])
    server.call("clock", {"advance_seconds": (datetime.now(UTC) - now).total_seconds()})
    follow(server, *faults, plan=plan)
    server.reset()
    yield server
    assert "file_list" not in server.ledger()["calls"]


def follow(server: Emulator, *faults: str, plan: str = "") -> None:
    """Let the emulator follow another plan from now on."""
    toml = "\n".join((BRIEF, plan, *faults)).encode()
    with urllib.request.urlopen(f"{server.base_url}/emulator/plan", data=toml, timeout=30) as reply:  # noqa: S310
        reply.read()


def fault(kind: str, **more: object) -> str:
    """One fault of the plan, as TOML."""
    return "[[fault]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in {"kind": kind, **more}.items())


def manifest(path: Path, rows: Mapping[str, Mapping[str, Any]]) -> Path:
    """A manifest of ``rows`` by key; the prompt is the key where a row has none, so that faults can match it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"key": key, "prompt": key, **row}) + "\n" for key, row in rows.items()))
    return path


def error_of(line: Mapping[str, Any]) -> tuple[str, str]:
    """Stage and kind of a line's error."""
    return line["error"]["stage"], line["error"]["kind"]


@contextmanager
def started(source: Path, output: Path, *arguments: object, base_url: str) -> Iterator["subprocess.Popen[str]"]:
    """``run --json`` going on; killed where the test ends before it."""
    process = processes.start("run", source, "-o", output, "--json", "--base-url", base_url, *arguments)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            process.communicate()


def wait_until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    """Until ``holds`` does; the test's own assertions speak where it never does."""
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.02)


_MEASURED = """
import resource, subprocess, sys
ended = subprocess.run(sys.argv[1:])
sys.stderr.write(f"peak {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}\\n")
sys.exit(ended.returncode)
"""


def measured_run(source: Path, output: Path, *arguments: object, base_url: str) -> processes.Ended:
    """``run --json`` with the most memory that it held."""
    command = [PYTHON, "-m", "pipeline", "run", source, "-o", output, "--json", "--base-url", base_url, *arguments]
    ended = subprocess.run(
        [sys.executable, "-c", _MEASURED, *map(str, command)],
        env=environment(KEY),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    peak_bytes = int(ended.stderr.split()[-1]) * unit_bytes
    return processes.Ended(ended.returncode, ended.stdout, ended.stderr, 0.0, peak_bytes)


def sparse_video(path: Path, size_bytes: int) -> Path:
    """A video that is mostly a hole: as long as it says, at the cost of a block."""
    from tests.support import generated

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(generated.video("mp4", 1))
        os.ftruncate(file.fileno(), size_bytes)
    return path
