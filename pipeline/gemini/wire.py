"""What comes over the wire, decoded by total functions: they take any bytes and never raise."""

import json
import math
import re
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from pipeline.gemini.api import Reply
from pipeline.plain_text import MESSAGE_CHARACTERS, one_line
from pipeline.records import Json

RETRY_DELAY_MAX_SECONDS = 120.0
"""Longest ``RetryInfo.retryDelay`` that is believed; ``9223372036854775807s`` occurs (python-genai#1172)."""


class FaultKind(StrEnum):
    """Why a call got no whole reply."""

    CONNECT = "connect"
    DNS = "dns"
    TLS_VERIFICATION = "tls_verification"
    TLS_HANDSHAKE = "tls_handshake"
    TIMEOUT_CONNECT = "timeout_connect"
    TIMEOUT_IDLE = "timeout_idle"
    TIMEOUT_TOTAL = "timeout_total"
    RESET = "reset"
    DISCONNECTED = "disconnected"
    PAYLOAD = "payload"
    """The reply's body was cut short or could not be decompressed."""
    NOT_HTTP = "not_http"
    """The reply was no HTTP."""
    BODY_TOO_LARGE = "body_too_large"


NEVER_SENT = frozenset(
    {
        FaultKind.CONNECT,
        FaultKind.DNS,
        FaultKind.TLS_VERIFICATION,
        FaultKind.TLS_HANDSHAKE,
        FaultKind.TIMEOUT_CONNECT,
    }
)
"""Faults that strike before the first byte of the request has left."""


class TransportFault(Exception):
    """A call got no whole reply. ``body_sent`` tells whether the request may have reached the service."""

    def __init__(self, kind: FaultKind, detail: str = "") -> None:
        super().__init__(f"{kind.value}: {detail}" if detail else kind.value)
        self.kind = kind
        self.body_sent = kind not in NEVER_SENT


class Delay(msgspec.Struct, frozen=True):
    """A ``RetryInfo.retryDelay``. ``seconds`` is None where it can't be believed at all."""

    seconds: float | None
    absurd: bool = False
    """It was negative, NaN, unreadable or longer than ``RETRY_DELAY_MAX_SECONDS``."""


class Violation(msgspec.Struct, frozen=True):
    """One entry of ``QuotaFailure.violations``; absent fields are empty."""

    metric: str = ""
    quota_id: str = ""
    value: str = ""
    model: str = ""


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """An error reply. ``recognised`` tells that it has the API's own shape, ``{"error": {…}}``."""

    recognised: bool = False
    message: str = ""
    status: str | None = None
    """The google.rpc.Code name."""
    reason: str | None = None
    """``ErrorInfo.reason``."""
    violations: tuple[Violation, ...] = ()
    delay: Delay | None = None


_SURROGATE = re.compile("[\ud800-\udfff]")


def decode_json(body: bytes) -> Json:
    """The JSON value in ``body``, None where there is none.

    A paid answer is worth some patience: lone surrogates and undecodable bytes become replacement characters,
    NaN and Infinity become null.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        value = json.loads(body.decode("utf-8", "replace"), parse_constant=lambda _name: None)
        return msgspec.json.decode(_SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False)))
    except (ValueError, RecursionError):
        return None


_DURATION = re.compile(r"\s*([+-]?\d{1,30}(?:\.\d{0,30})?)\s*s?\s*", re.ASCII)


def parse_seconds(value: Json) -> float | None:
    """Seconds of a protobuf Duration in any spelling seen: ``"34.07s"``, a number, ``{"seconds":…, "nanos":…}``."""
    if isinstance(value, dict):
        whole, nanos = parse_seconds(value.get("seconds", 0)), parse_seconds(value.get("nanos", 0))
        return None if whole is None or nanos is None else whole + nanos / 1e9
    if isinstance(value, str):
        found = _DURATION.fullmatch(value)
        return float(found[1]) if found else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
        return None if math.isnan(seconds) else seconds
    return None


def parse_delay(value: Json) -> Delay:
    """A ``retryDelay``, clamped: too long becomes the longest believed, negative or unreadable becomes None."""
    seconds = parse_seconds(value)
    if seconds is None or seconds < 0:
        return Delay(None, absurd=True)
    return Delay(min(seconds, RETRY_DELAY_MAX_SECONDS), absurd=seconds > RETRY_DELAY_MAX_SECONDS)


_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_MESSAGE_DELAY = re.compile(r"[Pp]lease retry in (\d{1,6}(?:\.\d{1,12})?)s")


def decode_error(body: bytes) -> ErrorBody:
    """An error body in any shape: the API's object, a one-element list around it, text, HTML, nothing."""
    value = decode_json(body) if body.lstrip()[:1] in (b"{", b"[") else None
    if isinstance(value, list) and value:
        value = value[0]
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        return ErrorBody(message=_text(body))
    message = error.get("message")
    message = message if isinstance(message, str) else ""
    details = error.get("details")
    details = [d for d in details if isinstance(d, dict)] if isinstance(details, list) else []
    status = error.get("status")
    return ErrorBody(
        recognised=True,
        message=one_line(message, 2 * MESSAGE_CHARACTERS),
        status=one_line(status, 64) if isinstance(status, str) else None,
        reason=_reason(details),
        violations=tuple(_violations(details)),
        delay=_delay(details, message),
    )


def _text(body: bytes) -> str:
    text = body[:8192].decode("utf-8", "replace")
    title = _TITLE.search(text)
    return one_line(title[1] if title else text)


def _kind(detail: Mapping[str, Json]) -> str:
    return str(detail.get("@type", "")).rpartition(".")[2]


def _reason(details: list[dict[str, Json]]) -> str | None:
    for detail in details:
        if isinstance(reason := detail.get("reason"), str) and _kind(detail) in ("ErrorInfo", ""):
            return one_line(reason, 64)
    return None


def _violations(details: list[dict[str, Json]]) -> list[Violation]:
    found = []
    for detail in details:
        listed = detail.get("violations")
        for violation in listed if isinstance(listed, list) else []:
            if isinstance(violation, dict) and _kind(detail) in ("QuotaFailure", ""):
                dimensions = violation.get("quotaDimensions")
                found.append(
                    Violation(
                        metric=_word(violation.get("quotaMetric")),
                        quota_id=_word(violation.get("quotaId")),
                        value=_word(violation.get("quotaValue")),
                        model=_word(dimensions.get("model") if isinstance(dimensions, dict) else None),
                    )
                )
    return found


def _word(value: Json) -> str:
    """A text, or an int64 in either of its JSON spellings."""
    return one_line(str(value), 200) if isinstance(value, str | int) else ""


def _delay(details: list[dict[str, Json]], message: str) -> Delay | None:
    """The longer of RetryInfo and the message's "Please retry in": the former is sometimes a truncation of it."""
    told = next((parse_delay(d["retryDelay"]) for d in details if "retryDelay" in d), None)
    said = _MESSAGE_DELAY.search(message)
    if told is None:
        return parse_delay(f"{said[1]}s") if said else None
    if said and told.seconds is not None and not told.absurd and 0 < float(said[1]) - told.seconds < 1:
        return Delay(min(float(said[1]), RETRY_DELAY_MAX_SECONDS))
    return told


def may_be_billed(seen: Reply | TransportFault) -> bool:
    """Whether a generate call that ended like this may have been billed (reliability's table, section 3)."""
    if isinstance(seen, TransportFault):
        return seen.body_sent
    return 200 <= seen.status < 300 or seen.status in (408, 499, 504)
