"""Decides, without I/O, which PROCESSING file is asked about when, so that few calls find each ACTIVE soon.

Files of one MIME type take about as long as one another. Until that time is known only a few *scouts* of a type
are asked, at growing intervals; the others wait for what the scouts find out, and are then asked when they should
be done. Not all files of a type are alike, so no scout is waited for for long, and no expectation is long.
"""

import math

import msgspec

SCOUTS = 2
"""Files of a type that are asked about while nothing is known of the type."""
SCOUT_ASKS = 12
"""So often is a scout asked, in about twelve seconds, before another joins it: it may be the longest of them all."""

FIRST_INTERVAL_SECONDS = 0.5
AGE_SHARE = 0.25
"""A file is asked about again after this share of its age: it is found at most a quarter late."""
MAX_INTERVAL_SECONDS = 15.0
MAX_EXPECTED_SECONDS = 30.0
"""No file waits longer to be asked for the first time: one long video says little of the clips behind it."""
SILENCE_SECONDS = 15.0
"""A scout whose answer takes longer is one no more: it finds nothing out."""
SHRINK = 0.95
"""A file that was ACTIVE when first asked lets the next be asked a little earlier."""


class _Waiting(msgspec.Struct, kw_only=True):
    mime_type: str
    since: float
    due_at: float
    asked: int = 0
    out_since: float | None = None
    """When the call about it went out that has no answer yet."""


class Schedule:
    """A state machine over (event, now); times are monotonic seconds."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}
        self._expected_seconds: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, name: str, *, mime_type: str, now: float) -> None:
        """Begin to wait for the file ``name``."""
        expected = self._expected_seconds.get(mime_type, FIRST_INTERVAL_SECONDS)
        self._waiting[name] = _Waiting(mime_type=mime_type, since=now, due_at=now + expected)

    def age_seconds(self, name: str, now: float) -> float:
        """How long the file has been waited for."""
        return now - self._waiting[name].since

    def due(self, now: float) -> list[str]:
        """The files to ask about now, longest overdue first."""
        due = [name for name in self._eligible(now) if self._waiting[name].due_at <= now]
        return sorted(due, key=lambda name: self._waiting[name].due_at)

    def next_due_at(self, now: float) -> float:
        """When ``due`` will next have something; infinity while nothing is to be asked about."""
        return min((self._waiting[name].due_at for name in self._eligible(now)), default=math.inf)

    def asking(self, name: str, now: float) -> None:
        """A call about the file goes out: it is not due again before its answer."""
        waiting = self._waiting[name]
        waiting.due_at, waiting.out_since = math.inf, now

    def still_processing(self, name: str, now: float) -> None:
        """The file was asked about and is not ACTIVE yet."""
        waiting = self._waiting.get(name)
        if waiting is None:
            return
        waiting.asked += 1
        waiting.out_since = None
        interval = min(MAX_INTERVAL_SECONDS, max(FIRST_INTERVAL_SECONDS, AGE_SHARE * (now - waiting.since)))
        waiting.due_at = now + interval

    def active(self, name: str, now: float) -> None:
        """The file was found ACTIVE: learn from it."""
        waiting = self._waiting.pop(name, None)
        if waiting is None:
            return
        took = now - waiting.since
        known = waiting.mime_type in self._expected_seconds
        if waiting.asked == 0 and known:
            took = min(took, self._expected_seconds[waiting.mime_type]) * SHRINK
        self._expected_seconds[waiting.mime_type] = took = min(took, MAX_EXPECTED_SECONDS)
        if not known:
            for other in self._waiting.values():
                if other.mime_type == waiting.mime_type and other.asked == 0 and other.out_since is None:
                    other.due_at = other.since + took

    def drop(self, name: str) -> None:
        """Nobody waits for the file any more."""
        self._waiting.pop(name, None)

    def _eligible(self, now: float) -> list[str]:
        """Every file of a known type, and the scouts of unknown ones (dicts keep the order of arrival)."""
        eligible = []
        scouts: dict[str, int] = {}
        for name, waiting in self._waiting.items():
            if waiting.mime_type not in self._expected_seconds:
                if waiting.out_since is not None and now - waiting.out_since > SILENCE_SECONDS:
                    continue
                if waiting.asked < SCOUT_ASKS:
                    scouts[waiting.mime_type] = scouts.get(waiting.mime_type, 0) + 1
                    if scouts[waiting.mime_type] > SCOUTS:
                        continue
            eligible.append(name)
        return eligible
