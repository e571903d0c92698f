"""The words of the classification table: what a signal is, what a row of the table says, what a verdict tells."""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum

import msgspec

from pipeline.errors import Again
from pipeline.gemini.api import Reply, Route
from pipeline.gemini.wire import ErrorBody, TransportFault, decode_error, decode_json
from pipeline.records import Json


class Action(StrEnum):
    """What to do about a signal."""

    SUCCESS = "success"
    RETRY = "retry"
    """Send again after a back-off; counts towards the item's attempts."""
    WAIT = "wait"
    """A quota of minutes: every call waits at the gate; costs no attempt."""
    PROBE_DAY = "probe_day"
    """A daily quota together with one of minutes: exactly one call tries again, the rest wait for its fate."""
    PROBE_KEY = "probe_key"
    """The key is refused: one free call confirms it before the run stops."""
    PAUSE_STORAGE = "pause_storage"
    """The project's storage is full: uploads pause, generation goes on."""
    STOP_EARLY = "stop_early"
    STOP_HUMAN = "stop_human"
    AGAIN_FILE_GONE = "again_file_gone"
    AGAIN_NOT_ACTIVE = "again_not_active"
    AGAIN_FRESH_UPLOAD = "again_fresh_upload"
    QUERY = "query"
    """An upload chunk's fate is unknown: ask for the offset."""
    RESTART = "restart"
    """The upload session is dead: begin a new one."""
    FAIL_ITEM = "fail_item"


AGAIN: Mapping[Action, Again] = {
    Action.AGAIN_FILE_GONE: Again.FILE_GONE,
    Action.AGAIN_NOT_ACTIVE: Again.NOT_ACTIVE,
    Action.AGAIN_FRESH_UPLOAD: Again.FRESH_UPLOAD,
}


_NO_ERROR = ErrorBody()


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended, decoded as far as the table needs. ``status`` is 0 where there was no reply."""

    route: Route
    status: int = 0
    headers: Mapping[str, str] = {}
    error: ErrorBody = ErrorBody()
    fault: TransportFault | None = None
    value: Json = None
    """The JSON of a 2xx; None where it holds none."""
    is_empty: bool = True

    @property
    def is_json(self) -> bool:
        """Whether it is a 2xx that holds JSON."""
        return self.value is not None

    def says(self, *patterns: str) -> bool:
        """Whether the error's message or reason holds one of ``patterns`` (regular expressions, any case)."""
        text = f"{self.error.message}\n{self.error.reason or ''}"
        return any(re.search(pattern, text, re.IGNORECASE) for pattern in patterns)

    def quota(self, part: str) -> bool:
        """Whether a violated quota has ``part`` in its name or metric."""
        return any(part.lower() in f"{v.quota_id} {v.metric}".lower() for v in self.error.violations)

    def named_files(self) -> tuple[str, ...]:
        """Names of files in the error's message, which writes "the File abc123" or "files/abc123"."""
        found = re.findall(r"\b(?:[Tt]he File |files/)([a-z0-9][a-z0-9-]{0,39})\b", self.error.message)
        return tuple(dict.fromkeys(f"files/{name}" for name in found))


def read_signal(route: Route, seen: Reply | TransportFault) -> Signal:
    """Decode what came back; never raises."""
    if isinstance(seen, TransportFault):
        return Signal(route=route, fault=seen)
    ok = 200 <= seen.status < 300
    return Signal(
        route=route,
        status=seen.status,
        headers=seen.headers,
        error=_NO_ERROR if ok else decode_error(seen.body),
        value=decode_json(seen.body) if ok and seen.body else None,
        is_empty=not seen.body or seen.body.isspace(),
    )


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a signal means. ``rule`` names the row of the table that decided."""

    action: Action
    rule: str
    message: str
    kind: str | None = None
    """The failure kind, should the item end here."""
    retryable: bool = False
    """Whether the next run tries again, should the item end here."""
    tries: int | None = None
    """Most calls of one item that may end in this row; None leaves it to the attempt limit."""
    is_outage: bool = False
    """Whether the service or the way to it is at fault: an outage is made of these."""
    never_connected: bool = False
    rewritten: bool = False
    """Something on the way rewrites replies."""
    ambiguous: bool = False
    """Whether the call may have been billed without an answer."""
    signal: Signal


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table."""

    rule: str
    when: Callable[[Signal], bool]
    action: Action
    kind: str | None = None
    permanent: bool = False
    """An item that ends here is not tried again by the next run."""
    tries: int | None = None
    is_outage: bool = False
    rewritten: bool = False
    advice: str = ""
    """Put before the service's own words."""
