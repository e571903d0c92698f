"""Steering and reading the emulator over HTTP, without a key; changes when tests need to steer or read more."""

from typing import TYPE_CHECKING, Any

import msgspec

from pipeline.emulator import api_errors
from pipeline.emulator.plan import parse_plan
from pipeline.emulator.reply import TEXT_TYPE, Reply

if TYPE_CHECKING:
    from pipeline.emulator.server import Emulator

LINES_TYPE = "application/jsonl; charset=UTF-8"


class _Advance(msgspec.Struct, forbid_unknown_fields=True):
    advance_seconds: float


def control(emulator: "Emulator", method: str, path: str, body: bytes) -> Reply:
    """Answer one control call."""
    service = emulator.service
    if (method, path) == ("GET", "/emulator/ledger"):
        return Reply(payload=emulator.ledger())
    if (method, path) == ("GET", "/emulator/ledger/calls"):
        return Reply(body=msgspec.json.Encoder().encode_lines(service.ledger.calls), content_type=LINES_TYPE)
    if (method, path) == ("GET", "/emulator/ledger/bodies"):
        return Reply(body=service.ledger.bodies(), content_type=LINES_TYPE)
    if (method, path) == ("POST", "/emulator/reset"):
        emulator.reset()
        return Reply(payload={})
    try:
        if (method, path) == ("POST", "/emulator/clock"):
            emulator.clock.advance(msgspec.json.decode(body, type=_Advance).advance_seconds)
            return Reply(payload=_now(emulator))
        if (method, path) == ("POST", "/emulator/plan"):
            service.adopt(parse_plan(body))
            return Reply(payload={})
    except (ValueError, msgspec.DecodeError) as problem:
        return api_errors.invalid_argument(str(problem))
    if (method, path) == ("GET", "/emulator/clock"):
        return Reply(payload=_now(emulator))
    return Reply(status=404, body=f"The emulator has no {method} {path}.\n".encode(), content_type=TEXT_TYPE)


def _now(emulator: "Emulator") -> dict[str, Any]:
    return {"now": emulator.clock.now().isoformat()}
