"""``python -m tests.support.sampled FILE ARGUMENTS``: the command, and what it holds, written down as it goes.

FILE gets a line of ``Sample`` as JSON for each look. The event loop itself looks, so that it can tell its tasks.
"""

import asyncio
import os
import sys
import time
from functools import partial
from io import BufferedWriter
from pathlib import Path
from typing import Any

import msgspec

from pipeline import cli
from pipeline.commands import run as command

LOOK_SECONDS = 0.2


class Sample(msgspec.Struct, kw_only=True):
    """What the process holds at a moment."""

    seconds: float
    memory_bytes: int
    descriptors: int
    threads: int
    tasks: int


def samples(file: Path) -> list[Sample]:
    """All that was written down; of a process that was killed, the last line may be torn."""
    return [msgspec.json.decode(line, type=Sample) for line in file.read_bytes().split(b"\n")[:-1]]


def _look(began: float, out: BufferedWriter, loop: asyncio.AbstractEventLoop) -> None:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    sample = Sample(
        seconds=time.monotonic() - began,
        memory_bytes=int(status["VmRSS"].split()[0]) * 1024,
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=int(status["Threads"]),
        tasks=len(asyncio.all_tasks(loop)),
    )
    out.write(msgspec.json.encode(sample) + b"\n")
    out.flush()
    loop.call_later(LOOK_SECONDS, _look, began, out, loop)


def main() -> None:
    """Put the looking around what the command runs on its event loop."""
    file, *sys.argv[1:] = sys.argv[1:]
    run = command._run

    async def looked_at(out: BufferedWriter, *given: Any) -> Any:
        _look(time.monotonic(), out, asyncio.get_running_loop())
        return await run(*given)

    with open(file, "wb") as out:
        command._run = partial(looked_at, out)  # type: ignore[assignment]
        cli.main()


if __name__ == "__main__":
    main()
