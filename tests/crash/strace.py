"""Runs programs under strace, where this machine permits it."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.support.processes import ROOT, environment

CHANGING_CALLS = ("write", "pwrite64", "fdatasync", "fsync", "ftruncate", "rename", "unlink")
"""Every system call by which a run changes its folder; what is said to the outside goes by writev."""


@functools.cache
def _why_not() -> str:
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip().splitlines()[-1] if tried.returncode else ""


@pytest.fixture(scope="session")
def tracing_allowed() -> None:
    """Skip where processes can't be traced."""
    if why := _why_not():
        pytest.skip(f"needs strace and the right to trace: {why}")


def traced(
    options: Sequence[str], *program: object, key: str | None = None, timeout: float = 300
) -> "subprocess.CompletedProcess[bytes]":
    """``python`` with the arguments ``program`` under strace, its threads and children included."""
    return subprocess.run(
        ["strace", "-f", "-qq", *options, sys.executable, *map(str, program)],
        check=False,
        capture_output=True,
        cwd=ROOT,
        env=environment(key),
        timeout=timeout,
    )


def kill_at(call: str, number: int) -> list[str]:
    """Options that kill a process when one of its threads enters its ``number``-th ``call``, before that is done."""
    return ["-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"]
