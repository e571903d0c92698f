"""A SOURCE of a million items: time to the first request, a night with nothing to do, and what looks at its run folder.

    python -m tests.benchmarks.million_rows [--rows N] [--files N] [--form jsonl|csv|folder|flat] [--shuffled]
        [--folder DIR] [option of `pipeline run` ...]

The items are done by the project's own code, without a server: read, assembled, and written as result lines. Then real
commands run over them as processes of their own, against ``lean_server`` in this process, which says what it was asked.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from pipeline.clock import SystemClock
from pipeline.ledger.memory import MemoryLedger
from pipeline.limits import Limits
from pipeline.manifest.assemble import Assembler
from pipeline.manifest.folder import FolderSource
from pipeline.manifest.prompts import Prompts
from pipeline.manifest.reader import Reader
from pipeline.manifest.source import ManifestSource, Source, most_files
from pipeline.media.identify import Identifier
from pipeline.records import Answer, Item, Outcome, Placed, Rejected, Status, Usage
from pipeline.results import durable
from pipeline.results.record import encode, line_of
from pipeline.results.results_file import NAME
from pipeline.results.run_folder import LEDGER
from pipeline.spec import ItemDefaults, SourceSpec
from tests.benchmarks.lean_server import Connection, Server
from tests.benchmarks.million_lines import NOW
from tests.benchmarks.service import Service
from tests.support import generated
from tests.support.processes import KEY, PYTHON, ROOT, environment

BACKEND = "127.0.0.1"
"""What result lines call a server of ours."""

LOOK_SECONDS = 0.02
FILES_A_FOLDER = 1_000
FOLDERS = "folder", "flat"
SHUFFLE_STEP = 7_368_787
"""A prime, so that every row comes once."""


@contextmanager
def server() -> Iterator[Server]:
    """A lean server in a thread of this process, which has nothing else to do."""
    asked, loop = Server(Service()), asyncio.new_event_loop()
    listening = loop.run_until_complete(loop.create_server(lambda: Connection(asked), "127.0.0.1", 0))
    asked.origin = "http://{}:{}".format(*listening.sockets[0].getsockname())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asked
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        listening.close()
        loop.close()


def write_media(folder: Path, count: int, *, flat: bool = False) -> None:
    """``count`` tiny pictures, no two alike, a thousand in a folder, or all in one."""
    picture = generated.image("JPEG", 1, side=24)
    for number in range(count):
        place = folder if flat else folder / f"{number // FILES_A_FOLDER:04d}"
        if number % FILES_A_FOLDER == 0:
            place.mkdir(parents=True, exist_ok=True)
        (place / f"img_{number:07d}.jpg").write_bytes(picture + number.to_bytes(4, "big"))


def write_manifest(path: Path, rows: int, files: int, *, step: int = 1) -> None:
    """A manifest of so many rows, over so many files beside it; ``step`` other than 1 puts the rows out of order."""
    with path.open("w") as manifest:
        if path.suffix == ".csv":
            manifest.write("key,media,product\n")
        for at in range(rows):
            number = at * step % rows
            file = number % files
            row = {
                "key": f"item-{number:07d}",
                "media": f"media/{file // FILES_A_FOLDER:04d}/img_{file:07d}.jpg",
                "product": f"Product {number}",
            }
            manifest.write(",".join(row.values()) + "\n" if path.suffix == ".csv" else json.dumps(row) + "\n")


def write_done(source: Path, run_folder: Path, prompt: str | None = None) -> None:
    """A run folder in which every item of ``source`` is done, by the code that does it in a run."""
    run_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(run_folder / NAME, durable.OPEN_FLAGS | os.O_TRUNC, durable.PRIVATE_FILE)
    try:
        for batch in _items(source, run_folder, prompt):
            durable.write_all(fd, b"".join(encode(line_of(_answered(item), BACKEND)) for item in batch))
    finally:
        os.close(fd)
    (run_folder / LEDGER).unlink(missing_ok=True)


def _items(path: Path, run_folder: Path, prompt: str | None) -> Iterator[list[Item | Rejected]]:
    spec, limits, clock = SourceSpec(path=path), Limits(), SystemClock()
    identifier = Identifier(MemoryLedger(), clock, max_bytes=limits.file_bytes)
    defaults = ItemDefaults(prompt=prompt) if prompt else ItemDefaults()
    assembler = Assembler(defaults, limits, identifier, Prompts(), warn=print)
    source: Source
    if spec.is_folder:
        source = FolderSource(
            path,
            spec,
            run_folder=run_folder,
            clock=clock,
            most_files=most_files(limits),
            check_cancelled=lambda: None,
        )
    else:
        source = ManifestSource(spec, limits, warn=print, check_cancelled=lambda: None)
    reader = Reader(source, assembler, identifier)
    while batch := reader.next_batch():
        identifier.take_new()
        yield batch


def _answered(subject: Item | Rejected) -> Outcome:
    assert isinstance(subject, Item), subject
    answer = Answer(
        text=f"{subject.key} shows a bay at low tide, with three boats and a pier. " * 2,
        model_version="gemini-3.8-flash",
        response_id=f"r{subject.position:020d}",
        finish_reason="STOP",
        usage=Usage(prompt_tokens=280, output_tokens=57, total_tokens=337),
    )
    parts = tuple(Placed(media=medium) for medium in subject.media)
    return Outcome(
        subject=subject,
        status=Status.SUCCEEDED,
        attempts=1,
        answer=answer,
        parts=parts,
        started_at=NOW,
        finished_at=NOW,
    )


class Took(msgspec.Struct, kw_only=True):
    """What one command took."""

    name: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    exit_code: int
    calls: int
    """Of any kind, answered by the server."""
    first_request_seconds: float | None = None
    items: dict[str, int] = {}

    def __str__(self) -> str:
        first = "" if self.first_request_seconds is None else f"  first request {self.first_request_seconds:.1f} s"
        counts = ", ".join(f"{number:,} {what}" for what, number in self.items.items() if number)
        return (
            f"{self.name:34} {self.seconds:6.1f} s {self.cpu_seconds:6.1f} s of CPU {self.peak_bytes / 1e6:5.0f} MB"
            f"  exit {self.exit_code}  {self.calls} calls{first}  {counts}"
        )


def command(name: str, asked: Server, *arguments: object, stop_after_first: bool = False) -> Took:
    """Run ``pipeline ARGUMENTS`` to its end, or until it has sent its first request and has been told to stop."""
    report = asked.report
    calls, report.first_generate_at = report.calls, None
    began = time.monotonic()
    line = [PYTHON, "-m", "pipeline", *map(str, arguments)]
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=out, cwd=ROOT, env=environment(KEY))
        peak_bytes, stopped = 0, False
        while True:
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            peak_bytes = max(peak_bytes, _peak_bytes(process.pid))
            if stop_after_first and report.first_generate_at and not stopped:
                process.terminate()
                stopped = True
            time.sleep(LOOK_SECONDS)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        out.seek(0)
        told = out.read()
    summary: dict[str, Any] = json.loads(told) if told.startswith(b"{") else {}
    items = summary.get("items", {})
    return Took(
        name=name,
        seconds=seconds,
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_bytes=peak_bytes or used.ru_maxrss * 1024,
        exit_code=process.returncode,
        calls=report.calls - calls,
        first_request_seconds=report.first_generate_at and report.first_generate_at - began,
        items=items,
    )


def _peak_bytes(pid: int) -> int:
    """The peak so far; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def nights(
    source: Path, run_folder: Path, *options: object, reorder: Callable[[], None] = lambda: None
) -> Iterator[Took]:
    """The commands over ``source``, one after another, each told as it ends.

    ``reorder`` may put SOURCE in another order than the one in which its items were done.
    """
    with server() as asked:
        run = ("run", source, "-o", run_folder, "--base-url", asked.origin, "--json", "--quiet", *options)
        yield command("new: until the first request", asked, *run, stop_after_first=True)
        write_done(source, run_folder)
        reorder()
        yield command("all done, ledger deleted", asked, *run)
        yield command("all done", asked, *run)
        yield command("all done, once more", asked, *run)
        yield command("all done, --on-change stop", asked, *run, "--on-change", "stop")
        yield command("all changed, first request", asked, *run, "-p", "Another.", stop_after_first=True)
        yield command("one limited item, then survey", asked, *run, "-p", "Another.", "--limit", "1")
        yield command("status", asked, "status", run_folder, "--json")
        yield command("verify", asked, "verify", run_folder)


def make(form: str, folder: Path, rows: int, files: int) -> Path:
    """SOURCE of that form."""
    is_folder = form in FOLDERS
    write_media(folder / "media", rows if is_folder else files, flat=form == "flat")
    if is_folder:
        return folder / "media"
    manifest = folder / f"manifest.{form}"
    write_manifest(manifest, rows, files)
    return manifest


def main() -> None:
    """The command line."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--files", type=int, default=1_000)
    arguments.add_argument("--form", choices=["jsonl", "csv", *FOLDERS], default="jsonl")
    arguments.add_argument("--shuffled", action="store_true", help="rows in another order than their result lines")
    arguments.add_argument("--folder", type=Path, help="where to make it all, and keep it")
    given, options = arguments.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder: Path = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        source = make(given.form, folder, given.rows, given.files)
        shuffle = partial(write_manifest, source, given.rows, given.files, step=SHUFFLE_STEP)
        reorder = shuffle if given.shuffled and given.form not in FOLDERS else lambda: None
        for took in nights(source, folder / "run", *options, reorder=reorder):
            print(took, flush=True)


if __name__ == "__main__":
    sys.exit(main())
