"""The emulator as pytest fixtures; changes when tests start it otherwise.

Registered as a pytest plugin, so importing it costs next to nothing: the emulator is imported when a test asks for it.
"""

import asyncio
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pipeline.emulator.plan import Plan

START_SECONDS = 30.0


class RunningEmulator:
    """An emulator in a thread of its own, so that synchronous and asynchronous tests can use it alike."""

    def __init__(self, plan: "Plan | None" = None) -> None:
        self.base_url = ""
        self._plan = plan
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="gemini-emulator", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_SECONDS):
            raise TimeoutError("The emulator did not start.")
        if self._problem is not None:
            raise self._problem

    def stop(self) -> None:
        """End the server and its thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def ledger(self) -> dict[str, Any]:
        """What happened so far: ``GET /emulator/ledger``."""
        summary: dict[str, Any] = json.loads(self._control("GET", "ledger"))
        return summary

    def calls(self) -> list[dict[str, Any]]:
        """Every call that has ended: ``GET /emulator/ledger/calls``."""
        return [json.loads(line) for line in self._control("GET", "ledger/calls").splitlines()]

    def bodies(self) -> list[dict[str, Any]]:
        """The recorded bodies of generateContent: ``GET /emulator/ledger/bodies``."""
        return [json.loads(line) for line in self._control("GET", "ledger/bodies").splitlines()]

    def advance(self, seconds: float) -> None:
        """Move the emulator's clock forward."""
        self._control("POST", "clock", json.dumps({"advance_seconds": seconds}).encode())

    def reset(self) -> None:
        """Forget files, sessions, counts and the ledger."""
        self._control("POST", "reset")

    def follow(self, plan_toml: str) -> None:
        """Replace the plan."""
        self._control("POST", "plan", plan_toml.encode())

    def _control(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{self.base_url}/emulator/{path}", data=body, method=method)  # noqa: S310 - loopback
        # A proxy of the environment has no business with the loopback interface.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request) as response:
            content: bytes = response.read()
            return content

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as problem:  # noqa: BLE001 - handed to the thread that waits for the start
            self._problem = problem
        finally:
            self._ready.set()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _serve(self) -> None:
        from pipeline.emulator.server import Emulator

        async with Emulator(self._plan) as emulator:
            self.base_url = emulator.base_url
            self._ready.set()
            await self._stop.wait()


EmulatorFactory = Callable[..., RunningEmulator]


@pytest.fixture
def gemini_emulator_factory() -> Iterator[EmulatorFactory]:
    """Starts emulators, each with a plan of its own: ``gemini_emulator_factory(Plan(...))``."""
    running: list[RunningEmulator] = []

    def start(plan: "Plan | None" = None) -> RunningEmulator:
        running.append(RunningEmulator(plan))
        return running[-1]

    yield start
    for emulator in running:
        emulator.stop()


@pytest.fixture
def gemini_emulator(gemini_emulator_factory: EmulatorFactory) -> RunningEmulator:
    """An emulator without faults, where videos are PROCESSING for a moment."""
    from pipeline.emulator.plan import Plan

    return gemini_emulator_factory(Plan(processing_seconds={"video/*": 0.2}))
