"""Whether the service is up: outages, a daily quota under suspicion, breakers; pure state over (event, now)."""

import math

import msgspec


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how often troubles are borne with."""

    backoff_seconds: float = 1.0
    """First back-off; doubles, with full jitter."""
    backoff_max_seconds: float = 60.0
    outage_subjects: int = 10
    """So many distinct items failing, with no success between, are an outage."""
    outage_connects: int = 5
    """So many connection attempts failing in a row are an outage."""
    probe_max_seconds: float = 10.0
    """In an outage one call in so long is sent to see whether it is over; its end must not go unnoticed for long."""
    outage_seconds: float = 1800.0
    """An outage, or refusals for quota without one success, that last longer end the run."""
    breaker_subjects: int = 10
    """So many distinct items ending the same way, with no success between, stop the run."""
    absurd_delays: int = 5
    """So many unbelievable ``RetryInfo`` in a row are a daily quota."""

    def backoff_cap(self, failures: int) -> float:
        """The longest wait after the ``failures``-th failure in a row."""
        return min(self.backoff_max_seconds, self.backoff_seconds * 2.0 ** min(max(failures - 1, 0), 30))

    def scaled(self, parallel: int) -> "Patience":
        """For ``parallel`` calls at once: fewer workers meet fewer items before an outage must be seen."""
        subjects = min(self.outage_subjects, max(3, parallel))
        return msgspec.structs.replace(self, outage_subjects=subjects)


class Health:
    """Of one family of calls (uploads may be down while generation is well).

    In an outage calls are admitted one by one, as probes, until one succeeds; the subject that probes passes freely
    until it fails, for an upload needs two calls to prove anything. Under suspicion of a used-up daily quota exactly
    one call is out; should its end never be told, another goes after ``Patience.outage_seconds``.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._failed: set[str] = set()
        self._failing_since = math.inf
        self._connect_faults = 0
        self._probes = 0
        self._next_probe = 0.0
        self._prober: str | None = None
        self._day_since: float | None = None
        self._refused_since = math.inf
        self._absurd = 0
        self._absurd_at = -math.inf
        self.successes = 0

    @property
    def in_outage(self) -> bool:
        """Whether nothing at all succeeds."""
        p = self._patience
        return len(self._failed) >= p.outage_subjects or self._connect_faults >= p.outage_connects

    @property
    def in_trouble(self) -> bool:
        """Whether calls are admitted one by one."""
        return self._day_since is not None or self.in_outage

    def admit(self, subject: str, now: float) -> float:
        """Seconds until the next chance, 0 to go ahead; the one that goes ahead takes the probe's place."""
        if not self.in_trouble or subject == self._prober:
            return 0.0
        if now < self._next_probe:
            return min(self._next_probe - now, self._patience.backoff_max_seconds)
        self._prober = subject
        self._probes += 1
        held_seconds = self._probe_seconds() if self._day_since is None else self._patience.outage_seconds
        self._next_probe = now + held_seconds
        return 0.0

    def succeeded(self, *, sent_at: float) -> bool:
        """A call did what it should. Tells whether calls that wait may go ahead now."""
        waited = self.in_trouble
        self.successes += 1
        self._failed.clear()
        self._failing_since = self._refused_since = math.inf
        self._connect_faults = self._probes = self._absurd = 0
        if self._day_since is not None and sent_at <= self._day_since:
            return False  # it says nothing of the day, whose probe may be out
        self._prober = self._day_since = None
        self._next_probe = 0.0
        return waited

    def answered(self) -> None:
        """Some reply came: the connection works."""
        self._connect_faults = 0

    def failed(self, subject: str, now: float, *, never_connected: bool) -> None:
        """A call failed by a fault of the network or the service."""
        self._connect_faults = self._connect_faults + 1 if never_connected else 0
        self._failed.add(subject)
        self._failing_since = min(self._failing_since, now)
        self._step_back(subject, now)

    def refused(self, now: float) -> None:
        """A call was refused for quota."""
        self._refused_since = min(self._refused_since, now)

    def refused_absurdly(self, *, sent_at: float, now: float) -> bool:
        """The refusal's delay can't be believed; tells whether that has happened too often in a row."""
        if sent_at > self._absurd_at:
            self._absurd += 1
            self._absurd_at = now
        return self._absurd >= self._patience.absurd_delays

    def day_refused(self, *, sent_at: float, now: float, delay_seconds: float) -> bool:
        """A daily quota is named beside one of minutes; tells whether the probe has now confirmed it."""
        if self._day_since is not None:
            return sent_at > self._day_since
        self._day_since = now
        self._prober = None
        self._next_probe = now + delay_seconds
        return False

    def gave_up(self, subject: str, now: float) -> None:
        """A call ended in neither success nor failure of the service: another may probe."""
        self._step_back(subject, now)

    def hopeless(self, now: float) -> bool:
        """Whether nothing has succeeded for so long that the run should end."""
        limit = self._patience.outage_seconds
        return (self.in_outage and now - self._failing_since >= limit) or now - self._refused_since >= limit

    def _step_back(self, subject: str, now: float) -> None:
        if subject == self._prober:
            self._prober = None
            self._next_probe = min(self._next_probe, now + self._probe_seconds())

    def _probe_seconds(self) -> float:
        return min(self._patience.probe_max_seconds, self._patience.backoff_cap(self._probes))


_CAUSES_MAX = 1000


class Breaker:
    """Trips when ``subjects`` distinct subjects end the same way with no reset between."""

    def __init__(self, subjects: int) -> None:
        self._limit = subjects
        self._seen: dict[str, set[str]] = {}

    def trips(self, cause: str, subject: str) -> bool:
        """Note one more; tells whether it was one too many."""
        if len(self._seen) >= _CAUSES_MAX and cause not in self._seen:
            self._seen.clear()  # so many causes have nothing in common
        subjects = self._seen.setdefault(cause, set())
        subjects.add(subject)
        return len(subjects) >= self._limit

    def reset(self) -> None:
        """Something went well."""
        self._seen.clear()
