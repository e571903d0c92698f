"""What the fault tests share: an emulator that no run may ask for a list, and manifests of one row a fault."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import processes
from tests.support.processes import Emulator, emulator

BRIEF = 'describe = "brief"\n'


@contextmanager
def service(*faults: str, plan: str = "") -> Iterator[Emulator]:
    """An emulator with ``faults``.

    Asserts in the end that nothing asked it for ``files.list``, which no run depends on.
    """
    with emulator(toml(*faults, plan=plan)) as server:
        yield server
        assert "file_list" not in server.ledger()["calls"]


def follow(server: Emulator, *faults: str, plan: str = "") -> None:
    """Let the emulator follow another plan from now on."""
    server.follow(toml(*faults, plan=plan))


def toml(*faults: str, plan: str) -> str:
    """A whole plan."""
    return "\n".join((BRIEF, plan, *faults))


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


def sparse_video(path: Path, size_bytes: int) -> Path:
    """A video that is mostly a hole: as long as it says, at the cost of a block."""
    from tests.support import generated

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(generated.video("mp4", 1))
        os.ftruncate(file.fileno(), size_bytes)
    return path
