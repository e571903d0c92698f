"""Runs one contestant against one server, both processes of their own, and takes the figures of both."""

import importlib.util
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec

from tests.benchmarks.service import Report, Service
from tests.support.processes import KEY, PYTHON, ROOT, environment

UVLOOP_INSTALLED = importlib.util.find_spec("uvloop") is not None
WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; from pipeline.cli import main; main()"
LONGEST_SECONDS = 3600.0


class Failed(Exception):
    """A contestant could not do its work; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that has ended."""

    exit_code: int
    stdout: str
    stderr: str
    began_at: float
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def run(command: list[str], **more: str) -> Ended:
    """One process from start to end; its peak memory is at least what this one's was when it was started."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        began_at = time.monotonic()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(KEY, **more), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
        )
        overdue = threading.Timer(LONGEST_SECONDS, process.kill)
        overdue.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
        finally:
            overdue.cancel()
        seconds = time.monotonic() - began_at
        process.returncode = os.waitstatus_to_exitcode(status)
        printed, said = (_content(stream) for stream in (stdout, stderr))
    unit_bytes = 1 if os.uname().sysname == "Darwin" else 1024
    cpu_seconds = used.ru_utime + used.ru_stime
    return Ended(process.returncode, printed, said, began_at, seconds, cpu_seconds, used.ru_maxrss * unit_bytes)


def _content(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


class Serving:
    """A server process; ``report`` is there once it has ended."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.report = Report()


@contextmanager
def server(service: Service) -> Iterator[Serving]:
    """A server of its own, on the fastest loop that is installed so that it is not the bottleneck."""
    command = [PYTHON, "-m", "tests.benchmarks.lean_server", "--service", msgspec.json.encode(service).decode()]
    command += ["--uvloop"] if UVLOOP_INSTALLED else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            serving = Serving(process.stdout.readline().strip())
            yield serving
        finally:
            process.terminate()
            serving.report = msgspec.json.decode(process.stdout.read() or "{}", type=Report)


@dataclass(frozen=True, slots=True)
class Job:
    """What every contestant of a round is given."""

    url: str
    media: Path
    output: Path
    concurrency: int
    uploads: int
    uvloop: bool


@dataclass(frozen=True, slots=True)
class Contestant:
    """Somebody who can do the job."""

    name: str
    program: str
    via: str = "inline"
    needs: str = "aiohttp"

    def installed(self) -> bool:
        """Whether it can take part here."""
        return importlib.util.find_spec(self.needs) is not None

    def command(self, job: Job) -> list[str]:
        """How it is started."""
        settings = ["--via", self.via, "--concurrency", str(job.concurrency)]
        if self.program == "pipeline":
            module = ["-m", "pipeline"] if job.uvloop else ["-c", WITHOUT_UVLOOP]
            settings += ["-o", str(job.output), "--base-url", job.url, "--uploads", str(job.uploads), "--json"]
            return [PYTHON, *module, "run", str(job.media), *settings]
        module = ["-m", "tests.benchmarks.bare_loop"]
        if self.program != "bare_loop":
            module = ["-m", "tests.benchmarks.peers", self.program]
        return [PYTHON, *module, job.url, str(job.media), *settings]


@dataclass(frozen=True, slots=True)
class Run:
    """One contestant's one run."""

    contestant: str
    items: int
    """With an answer."""
    failed: int
    ended: Ended
    loop_lag_ms: float | None
    """The 99th percentile, where the contestant tells it."""
    report: Report = field(default_factory=Report)

    @property
    def items_per_second(self) -> float:
        """Of the whole process, its start included."""
        return self.items / self.ended.seconds

    @property
    def cpu_ms_per_item(self) -> float:
        """Of the client's process."""
        return self.ended.cpu_seconds / max(1, self.items) * 1e3


def play(contestant: Contestant, job: Job, items: int) -> Run:
    """One run, without the server's report, which is there only once the server has ended."""
    ended = run(contestant.command(job), **({"BENCHMARK_UVLOOP": "1"} if job.uvloop else {}))
    try:
        told = json.loads(ended.stdout if contestant.program == "pipeline" else ended.stdout.splitlines()[-1])
        answered = told["items"]["succeeded"] if contestant.program == "pipeline" else told["items"]
    except (ValueError, LookupError):
        told, answered = {}, 0
    if not answered:
        raise Failed(f"{contestant.name}: exit {ended.exit_code}: {ended.stderr[-2000:]}")
    return Run(contestant.name, answered, items - answered, ended, told.get("loop_lag_ms", {}).get("p99"))
