"""A whole run in a process of its own, forked from the test: to be killed, or held, at a moment of its work.

Moments are counted at everything that matters outside: calls to the service, writes, syncs, renames, ledger commits;
before each and after it. A kill in the middle of a write leaves half of it.
"""

import os
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import msgspec

from pipeline import compose
from pipeline.errors import PipelineError
from pipeline.gemini import client
from pipeline.ledger.sqlite import SqliteLedger
from pipeline.report.summary import Summary
from pipeline.results import durable
from pipeline.spec import RunSpec
from tests.crash.service import Service


class Ended(NamedTuple):
    """How a run ended; ``exit_code`` is None where it was killed."""

    exit_code: int | None
    summary: Summary | None


class Clock:
    """The machine's clock, put forward."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now


class Run:
    """A run that has been started."""

    def __init__(
        self, spec: RunSpec, journal: Path, now: Callable[[], datetime], *, kill_at: int = 0, hold_at: int = 0
    ) -> None:
        """``hold_at`` makes it wait at that moment until ``end`` is called; ``is_held`` is known from here on."""
        self._told, tell = os.pipe()
        wait, self._release = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._release)

            def hold() -> None:
                os.write(tell, b"held\n")
                os.read(wait, 1)

            _child(spec, journal, now, tell, {kill_at: _kill, hold_at: hold})
        os.close(tell)
        os.close(wait)
        self._said = os.read(self._told, 65536) if hold_at else b""
        self.is_held = self._said == b"held\n"

    def end(self) -> Ended:
        """Let it go on, and wait for its end."""
        os.close(self._release)
        said = self._said.removeprefix(b"held\n")
        while more := os.read(self._told, 65536):
            said += more
        os.close(self._told)
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            return Ended(None, None)
        summary = msgspec.json.decode(said, type=Summary) if said.startswith(b"{") else None
        if summary is None and not said.startswith(b"exit"):
            raise AssertionError(said.decode())
        return Ended(os.WEXITSTATUS(status), summary)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _child(
    spec: RunSpec, journal: Path, now: Callable[[], datetime], tell: int, at: dict[int, Callable[[], None]]
) -> None:
    moments = 0

    def moment() -> None:
        nonlocal moments
        moments += 1
        at.get(moments, lambda: None)()

    try:
        _count(moment)
        client.open_transport = Service(journal, now, moment).open  # type: ignore[assignment, attr-defined]
        summary = anyio.run(_run, spec, Clock(now))
        os.write(tell, msgspec.json.encode(summary))
        os._exit(summary.exit_code)
    except PipelineError as error:
        os.write(tell, f"exit {error}".encode())
        os._exit(error.exit_code)
    except BaseException as error:  # noqa: BLE001  # the child must end here, whatever it is
        os.write(tell, repr(error).encode())
        os._exit(99)


async def _run(spec: RunSpec, clock: Clock) -> Summary:
    return await compose.run(spec, api_key="no-key", clock=clock)


def _count(moment: Callable[[], None]) -> None:
    """Have ``moment`` called before and after everything that changes the run folder."""

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            moment()
            result = function(*arguments, **named)
            moment()
            return result

        return call

    write_all = durable.write_all

    def in_two_pieces(fd: int, data: bytes) -> None:
        write_all(fd, data[: len(data) // 2])
        moment()
        write_all(fd, data[len(data) // 2 :])

    durable.write_all = counted(in_two_pieces)
    durable.sync_data = counted(durable.sync_data)
    durable.sync_folder = counted(durable.sync_folder)
    for owner, name in ((SqliteLedger, "_commit"), (Path, "replace"), (Path, "unlink")):
        setattr(owner, name, counted(getattr(owner, name)))
