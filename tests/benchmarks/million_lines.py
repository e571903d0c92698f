"""Opens a run folder of a million lines with and without its ledger, and tells time and memory beside a bare scan.

    python -m tests.benchmarks.million_lines [--lines N] [--folder DIR]

The bare scan decodes two fields of each line with msgspec and keeps nothing: what no reader of the file can beat.
"""

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path

import msgspec

from pipeline.clock import SystemClock
from pipeline.ledger.sqlite import open_sqlite_ledger
from pipeline.records import Answer, FileIdentity, Item, Media, Outcome, Placed, Status, Usage
from pipeline.results import durable
from pipeline.results.record import encode, line_of
from pipeline.results.recovery import blocks_of_lines
from pipeline.results.results_file import NAME
from pipeline.results.run_folder import LEDGER, open_run_folder
from pipeline.spec import RunSpec, SourceSpec

NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
LINES_AT_ONCE = 5_000
PEAK_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


class TwoFields(msgspec.Struct):
    """The least that tells which items are done."""

    key: str
    status: str


def outcome(number: int) -> Outcome:
    """An answer of ordinary length about one picture."""
    name = f"holiday/{number // 1000:04d}/img_{number:07d}.jpg"
    digest = sha256(name.encode()).hexdigest()
    identity = FileIdentity(size_bytes=52311, mtime_ns=1, ctime_ns=1, inode=number)
    medium = Media(
        path=name, location=f"/{name}", mime_type="image/jpeg", size_bytes=52311, sha256=digest, identity=identity
    )
    item = Item(
        key=name,
        position=number,
        line=None,
        model="gemini-3.8-flash",
        media=(medium,),
        prompt="Describe this media.",
        prompt_sha256=sha256(b"Describe this media.").hexdigest(),
        fingerprint=f"v1:{sha256(digest.encode()).hexdigest()}",
        template="describe",
    )
    answer = Answer(
        text=f"Picture {number} shows a bay at low tide, with three boats and a pier. " * 2,
        model_version="gemini-3.8-flash",
        response_id=f"r{number:020d}",
        finish_reason="STOP",
        usage=Usage(prompt_tokens=280, output_tokens=57, total_tokens=337),
    )
    return Outcome(
        subject=item,
        status=Status.SUCCEEDED,
        attempts=1,
        answer=answer,
        parts=(Placed(media=medium),),
        started_at=NOW,
        finished_at=NOW,
    )


def write_results(folder: Path, lines: int) -> Path:
    """results.jsonl with this many lines, made by the code that writes it in a run."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / NAME
    fd = os.open(path, durable.OPEN_FLAGS | os.O_TRUNC, durable.PRIVATE_FILE)
    try:
        for first in range(0, lines, LINES_AT_ONCE):
            batch = range(first, min(first + LINES_AT_ONCE, lines))
            durable.write_all(fd, b"".join(encode(line_of(outcome(number), "gemini")) for number in batch))
    finally:
        os.close(fd)
    return path


class Scanned(msgspec.Struct):
    """What the bare scan took."""

    seconds: float
    cpu_seconds: float


def bare_scan(path: Path) -> Scanned:
    """Scan once."""
    decode = msgspec.json.Decoder(TwoFields).decode_lines
    began, cpu_began = time.perf_counter(), time.process_time()
    fd = os.open(path, os.O_RDONLY)
    try:
        for block in blocks_of_lines(durable.read_range(fd, 0, path.stat().st_size)):
            decode(block)
    finally:
        os.close(fd)
    return Scanned(seconds=time.perf_counter() - began, cpu_seconds=time.process_time() - cpu_began)


class Opened(msgspec.Struct):
    """What it took until a run could begin in the folder."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def peak_memory_bytes() -> int:
    """This program's own peak. Linux counts into ``ru_maxrss`` what the process was before it became this program."""
    status = Path("/proc/self/status")
    if status.exists():
        [peak] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(peak.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT_BYTES


def open_once(folder: Path) -> Opened:
    """Open the folder as a run does."""

    async def go() -> Opened:
        open_ledger = partial(open_sqlite_ledger, endpoint="https://e", key_hash="k", warn=print)
        spec = RunSpec(output=folder, source_name="/photos", source=SourceSpec(path=None))
        began, cpu_began = time.perf_counter(), time.process_time()
        async with open_run_folder(spec, open_ledger=open_ledger, clock=SystemClock()):
            seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
        return Opened(seconds=seconds, cpu_seconds=cpu_seconds, peak_bytes=peak_memory_bytes())

    return asyncio.run(go())


def measured_open(folder: Path) -> Opened:
    """The same in a process of its own, for the sake of its memory."""
    command = [sys.executable, "-m", "tests.benchmarks.million_lines", "--open", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(done.stdout, type=Opened)


def table(folder: Path, lines: int) -> Iterator[str]:
    """The figures, a line each as they come."""
    path = write_results(folder, lines)
    yield f"{lines:,} lines, {path.stat().st_size / 1e6:.0f} MB"
    bare = min(bare_scan(path).seconds for _ in range(2))
    yield f"bare scan          {bare:6.2f} s"
    (folder / LEDGER).unlink(missing_ok=True)
    for name in ("ledger deleted", "ledger there"):
        took = measured_open(folder)
        yield (
            f"{name:18} {took.seconds:6.2f} s  {took.seconds / bare:5.2f} x  "
            f"{took.cpu_seconds:6.2f} s of CPU  {took.peak_bytes / 1e6:4.0f} MB"
        )


def main() -> None:
    """The command line."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--lines", type=int, default=1_000_000)
    arguments.add_argument("--folder", type=Path, help="a run folder to be made here, and kept")
    arguments.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.open:
        print(msgspec.json.encode(open_once(given.open)).decode())
        return
    with tempfile.TemporaryDirectory() as scratch:
        for line in table(given.folder or Path(scratch) / "run", given.lines):
            print(line, flush=True)


if __name__ == "__main__":
    main()
