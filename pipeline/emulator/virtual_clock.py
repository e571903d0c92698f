"""The emulator's wall clock, which can be moved forward; changes when time must be steered otherwise."""

from datetime import datetime, timedelta

from pipeline.clock import Clock, SystemClock


class VirtualClock:
    """Another clock plus an offset that only a test moves: the 48-hour rule is seen without waiting 48 hours."""

    def __init__(self, origin: Clock | None = None) -> None:
        self._origin = origin or SystemClock()
        self._offset = timedelta()

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        return self._origin.now() + self._offset

    def timestamp_seconds(self) -> float:
        """The present moment in Unix seconds."""
        return self.now().timestamp()

    def advance(self, seconds: float) -> None:
        """Move forward."""
        self._offset += timedelta(seconds=seconds)
