"""What happened, for tests to read; changes when a test needs to know more.

Every call is written down when it ends, also those whose client had left.
"""

import base64
import hashlib
import tempfile
from collections import Counter
from typing import IO, Any

import msgspec


class Call(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One request and how it ended."""

    time: str
    route: str
    path: str = ""
    identity: str = ""
    attempt: int = 0
    status: int | None = None
    ending: str = "answered"
    """``answered``, ``reset`` (by a fault), ``client_left`` or ``crashed``."""
    fault: str = ""
    bytes_received: int = 0
    milliseconds: float = 0.0


class PaidItem(msgspec.Struct, kw_only=True):
    """What a generate answer was paid for, and how often."""

    key: str
    model: str
    prompt: str
    """First 500 characters."""
    media: list[str]
    """SHA-256 of each medium, in order."""
    answers: int = 0


PROMPT_CHARACTERS = 500


class Ledger:
    """Counts of everything since the start or the last reset."""

    def __init__(self, *, record_bodies: bool) -> None:
        self.calls: list[Call] = []
        self.uploads: list[dict[str, Any]] = []
        self._by_status: dict[str, Counter[str]] = {}
        self._bytes_by_route: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._paid: dict[str, PaidItem] = {}
        self._in_flight: Counter[str] = Counter()
        self._most_in_flight: Counter[str] = Counter()
        self._largest_body_bytes = 0
        self._bodies: IO[bytes] | None = tempfile.TemporaryFile() if record_bodies else None  # noqa: SIM115

    def close(self) -> None:
        """Drop the recorded bodies."""
        if self._bodies:
            self._bodies.close()

    def begin(self, route: str) -> None:
        """A request arrived."""
        for name in ("all", route):
            self._in_flight[name] += 1
            self._most_in_flight[name] = max(self._most_in_flight[name], self._in_flight[name])

    def end(self, call: Call, arrived_as: str) -> None:
        """A request ended, one way or another."""
        self._in_flight["all"] -= 1
        self._in_flight[arrived_as] -= 1
        self.calls.append(call)
        how = str(call.status) if call.ending == "answered" else call.ending
        self._by_status.setdefault(call.route, Counter())[how] += 1
        self._bytes_by_route[call.route] += call.bytes_received
        self._largest_body_bytes = max(self._largest_body_bytes, call.bytes_received)
        if call.fault:
            self._faults[call.fault] += 1

    def pay(self, model: str, prompt: str, media: list[str]) -> str:
        """A generate answer with usage was made; returns the item's key."""
        key = item_key(model, prompt, media)
        item = self._paid.get(key)
        if item is None:
            item = PaidItem(key=key, model=model, prompt=prompt[:PROMPT_CHARACTERS], media=media)
            self._paid[key] = item
        item.answers += 1
        return key

    def record_body(self, model: str, body: bytes) -> None:
        """Keep a generate body, where the plan asks for it."""
        if self._bodies:
            line = {"model": model, "body_base64": base64.b64encode(body).decode()}
            self._bodies.write(msgspec.json.encode(line) + b"\n")

    def bodies(self) -> bytes:
        """The kept bodies, one JSON line each."""
        if not self._bodies:
            return b""
        self._bodies.seek(0)
        return self._bodies.read()

    def summary(self, *, open_sessions: int, most_open_sessions: int) -> dict[str, Any]:
        """Everything but the single calls."""
        paid = list(self._paid.values())
        return {
            "calls": {route: dict(counts) for route, counts in sorted(self._by_status.items())},
            "calls_total": len(self.calls),
            "in_flight": self._in_flight["all"],
            "most_in_flight": self._most_in_flight["all"],
            "most_in_flight_generate": self._most_in_flight["generate"],
            "bytes_received": dict(self._bytes_by_route),
            "largest_body_bytes": self._largest_body_bytes,
            "state_calls": sum(self._by_status.get("file_get", {}).values()),
            "open_upload_sessions": open_sessions,
            "most_open_upload_sessions": most_open_sessions,
            "faults": dict(self._faults),
            "uploads": self.uploads,
            "paid_answers": sum(item.answers for item in paid),
            "paid_items": len(paid),
            "paid_by_item": {item.key: item.answers for item in paid},
            "paid": msgspec.to_builtins(paid),
        }


def item_key(model: str, prompt: str, media: list[str]) -> str:
    """Names what was asked, however it travelled: the model, the media and the prompt."""
    digest = hashlib.sha256(msgspec.json.encode([model, media, prompt]))
    return digest.hexdigest()[:32]
