"""Begins the drain on signals and at the deadline, and ends it when its grace is used up."""

import signal
from collections.abc import Callable
from datetime import timedelta

import anyio

from pipeline.clock import Clock
from pipeline.drain import Drain
from pipeline.errors import ExitCode
from pipeline.spec import StopSpec

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK_AT_CLOCK_SECONDS = 15.0
"""The deadline is local time: it is looked at again this often, for clocks jump and laptops sleep."""


class Shutdown:
    """Watches over one run; ``stop_now`` cancels what a drain would let end."""

    def __init__(self, *, drain: Drain, spec: StopSpec, clock: Clock, stop_now: Callable[[], None]) -> None:
        self._drain = drain
        self._spec = spec
        self._clock = clock
        self._stop_now = stop_now

    async def watch_signals(self) -> None:
        """First signal: drain. Second: stop now. A signal that was ignored at start (nohup) stays ignored."""
        watched = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        received = 0
        with anyio.open_signal_receiver(*watched) as signals:
            async for number in signals:
                received += 1
                if received > 1:
                    self._stop_now()
                self._drain.begin(128 + number, f"stopped by {signal.Signals(number).name}; run again to go on")

    async def watch_deadline(self) -> None:
        """Begin the drain ``grace`` before the deadline, so that no call starts later."""
        deadline = self._spec.deadline
        if deadline is None:
            return
        local = deadline.astimezone().strftime("%H:%M:%S")
        reason = f"the deadline {local} is near; run again to go on"
        if (deadline - self._clock.now()).total_seconds() <= self._spec.grace_seconds:
            grace = f"{self._spec.grace_seconds:g} s"
            reason = f"the deadline {local} is nearer than the grace of {grace}: nothing was sent; lower --grace"
        await self._sleep_until(-self._spec.grace_seconds)
        self._drain.begin(ExitCode.STOPPED_EARLY, reason)
        await self._sleep_until(-self.closing_seconds)
        self._stop_now()

    async def watch_grace(self) -> None:
        """Stop what a drain has let go on for ``grace`` seconds."""
        await self._drain.wait()
        await anyio.sleep(self._spec.grace_seconds)
        self._stop_now()

    @property
    def closing_seconds(self) -> float:
        """Time kept before the deadline for the last commit and the compaction."""
        return min(5.0, self._spec.grace_seconds / 5)

    async def _sleep_until(self, offset_seconds: float) -> None:
        assert self._spec.deadline is not None  # noqa: S101 - the caller has looked
        until = self._spec.deadline + timedelta(seconds=offset_seconds)
        while (left := (until - self._clock.now()).total_seconds()) > 0:  # noqa: ASYNC110 - wall-clock time has no event
            await anyio.sleep(min(left, LOOK_AT_CLOCK_SECONDS))
