"""The real command and the real emulator as processes of their own, spoken to over real HTTP."""

import atexit
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent.parent
PYTHON = sys.executable
KEY = "AIza-a-test-key-that-opens-nothing-0000"


class Emulator:
    """An emulator process."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    def call(self, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        """GET a control route, or POST ``body`` to it."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.base_url}/emulator/{path}", data=data)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310
            content: bytes = reply.read()
        return content

    def ledger(self) -> dict[str, Any]:
        """What happened, in sums."""
        return dict(json.loads(self.call("ledger")))

    def calls(self) -> list[dict[str, Any]]:
        """Every call."""
        return [json.loads(line) for line in self.call("ledger/calls").splitlines()]

    def bodies(self) -> list[dict[str, Any]]:
        """Every generate body, where the plan records them."""
        return [json.loads(line) for line in self.call("ledger/bodies").splitlines()]

    def reset(self) -> None:
        """Forget everything."""
        self.call("reset", {})

    def follow(self, plan: str) -> None:
        """Let it follow another plan (TOML) from now on."""
        url = f"{self.base_url}/emulator/plan"
        with urllib.request.urlopen(url, data=plan.encode(), timeout=30) as reply:  # noqa: S310
            reply.read()

    def begin(self, plan: str) -> None:
        """As newly started with ``plan``: it knows of nothing, and its clock is right."""
        now = datetime.fromisoformat(json.loads(self.call("clock"))["now"])
        self.call("clock", {"advance_seconds": (datetime.now(UTC) - now).total_seconds()})
        self.follow(plan)
        self.reset()


_idle: list[Emulator] = []
"""Processes that no test uses: starting one takes as long as many a test."""


@contextmanager
def emulator(plan: str = "") -> Iterator[Emulator]:
    """An emulator process that follows ``plan`` (TOML) and knows of nothing else."""
    server = _idle.pop() if _idle else _launched()
    server.begin(plan)
    yield server  # after a failure it is not used again
    _idle.append(server)


def _launched() -> Emulator:
    process = subprocess.Popen(
        [PYTHON, "-m", "pipeline.emulator", "--port", "0"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    atexit.register(_end, process)
    assert process.stdout is not None
    return Emulator(process.stdout.readline().rsplit(" ", 1)[-1].strip())


def _end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


class Ended(NamedTuple):
    """A command that has ended."""

    exit_code: int
    stdout: str
    stderr: str
    seconds: float
    peak_bytes: int

    @property
    def summary(self) -> dict[str, Any]:
        """The object that ``--json`` printed."""
        return dict(json.loads(self.stdout))


def environment(key: str | None, **more: str) -> dict[str, str]:
    """The environment without keys of the machine's own."""
    kept = {
        k: v for k, v in os.environ.items() if k not in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL")
    }
    return kept | ({"GEMINI_API_KEY": key} if key else {}) | {"PYTHONPATH": str(ROOT)} | more


def start(*arguments: object, key: str | None = KEY, cwd: Path = ROOT, **more: str) -> "subprocess.Popen[str]":
    """Start the command."""
    return subprocess.Popen(
        [PYTHON, "-m", "pipeline", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=cwd,
        env=environment(key, **more),
    )


def pipeline(
    *arguments: object,
    key: str | None = KEY,
    cwd: Path = ROOT,
    timeout: float = 110,
    stdin: str | None = None,
    **more: str,
) -> Ended:
    """Run the command to its end."""
    began = time.monotonic()
    watched = subprocess.Popen(
        [PYTHON, "-m", "pipeline", *map(str, arguments)],
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment(key, **more),
    )
    try:
        stdout, stderr = watched.communicate(stdin, timeout=timeout)
    except BaseException:
        watched.kill()
        watched.communicate()
        raise
    return Ended(watched.returncode, stdout, stderr, time.monotonic() - began, 0)


def in_shell(script: str, *arguments: object, key: str | None = None, cwd: Path = ROOT) -> Ended:
    """A bash ``script`` that has the command line of ``pipeline ARGUMENTS`` as ``"$@"``."""
    began = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", script, "bash", PYTHON, "-m", "pipeline", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env=environment(key),
    )
    return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - began, 0)


def run(source: object, output: Path, *arguments: object, base_url: str | None = None, **more: Any) -> Ended:
    """``pipeline run --json`` against ``base_url``, or the built-in emulator where none is given."""
    where = ["--emulator"] if base_url is None else ["--base-url", base_url]
    return pipeline("run", source, "-o", output, "--json", *where, *arguments, **more)


_MEASURED = """
import resource, subprocess, sys
ended = subprocess.run(sys.argv[1:])
sys.stderr.write(f"peak {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}\\n")
sys.exit(ended.returncode)
"""


def measured_run(source: Path, output: Path, *arguments: object, base_url: str) -> Ended:
    """``run --json`` with the most memory that it held."""
    command = [PYTHON, "-m", "pipeline", "run", source, "-o", output, "--json", "--base-url", base_url, *arguments]
    ended = subprocess.run(
        [PYTHON, "-c", _MEASURED, *map(str, command)],
        env=environment(KEY),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    peak_bytes = int(ended.stderr.split()[-1]) * unit_bytes
    return Ended(ended.returncode, ended.stdout, ended.stderr, 0.0, peak_bytes)


def lines(output: Path) -> list[dict[str, Any]]:
    """Every line of results.jsonl, split as bytes."""
    raw = (output / "results.jsonl").read_bytes()
    assert raw == b"" or raw.endswith(b"\n")
    return [json.loads(line) for line in raw.split(b"\n")[:-1]]


def by_key(output: Path) -> dict[str, dict[str, Any]]:
    """The lines by key; asserts that no key has two."""
    all_lines = lines(output)
    found = {line["key"]: line for line in all_lines}
    assert len(found) == len(all_lines)
    return found
