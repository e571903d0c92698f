"""How an emulator behaves, as TOML or as Python; changes when a behaviour becomes configurable."""

import difflib
import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline.limits import Limits

Range = tuple[float, float]


class _Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the plan."""


class Lognormal(_Settings, frozen=True):
    """A latency with a long tail."""

    median_seconds: float
    sigma: float = 0.5


class Latency(_Settings, frozen=True):
    """How long answers take: a number, ``[low, high]`` or ``{median_seconds = 1.0, sigma = 0.5}``, in seconds."""

    upload: float | Range | Lognormal = 0.0
    """Every request to the upload server."""
    generate: float | Range | Lognormal = 0.0
    """generateContent, streamGenerateContent and countTokens."""
    files: float | Range | Lognormal = 0.0
    """files.get, files.list and files.delete."""


class Quota(_Settings, frozen=True):
    """Rate limits of one project (key) for one model; ``*`` stands for every model."""

    model: str = "*"
    requests_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    """Reset at midnight Pacific on the emulator's clock."""
    window: Literal["fixed", "sliding", "token_bucket"] = "fixed"
    burst: int | None = None
    """Requests a full token bucket holds; a minute's worth where unset."""
    free_tier: bool = False
    """Names the quotas of the free tier in the bodies."""
    with_quota_value: bool = True
    with_retry_info: bool = True
    with_details: bool = True


class Fault(_Settings, frozen=True):
    """One kind of failure, and which requests it hits. The first fault of the plan that hits a request is used."""

    kind: str
    route: str | list[str] = []
    """Where it strikes; the kind's own routes where unset, ``*`` for every route."""
    rate: float = 1.0
    """Share of matching requests, drawn from the seed and the request's identity, not from the order of arrival."""
    attempt: int | list[int] = []
    """Only these attempts (1 is the first) of the same request."""
    match: str = ""
    """Only where this stands in the prompt, a display name or a file name."""
    first: int | None = None
    """At most so many hits."""
    after: int = 0
    """Not the first so many requests of the route."""
    until: int | None = None
    """Not after so many requests of the route."""
    after_seconds: float = 0.0
    until_seconds: float | None = None
    """Only within this span since the emulator was started, on its clock."""
    seconds: float = 5.0
    """Length of ``slow``; delay before ``fail_processing`` shows."""
    retry_info: str | None = None
    """Replaces the ``retryDelay`` of a 429, whatever it says: ``"9223372036854775807s"``, ``"-1s"``, ``"NaNs"``."""
    quota_value: int = 10
    reason: str = ""
    """``finishReason`` or ``blockReason``."""
    text: bool = True
    """Whether ``finish`` keeps the text."""
    message: str = ""
    """Replaces the error's message."""
    host: str = "https://upload.example.com"
    """Origin of a foreign upload URL or a redirect."""
    framing: Literal["content_length", "chunked", "close"] = "content_length"
    """How the body of ``truncated_json`` is framed."""
    durable: bool = True
    """Whether ``cut_upload`` keeps what was received, down to a multiple of 256 KiB."""
    mebibytes: int = 1024
    """Size of ``gzip_bomb`` once unpacked."""


class Plan(_Settings, frozen=True):
    """Everything about an emulator that is not the API's own behaviour."""

    seed: int = 0
    accepted_keys: list[str] = []
    """The only good keys; every key is good where empty."""
    refused_keys: list[str] = []
    """Keys answered with API_KEY_INVALID."""
    models: list[str] = []
    """Models served besides the published ones, as the newest family."""
    describe: Literal["full", "brief"] = "full"
    """``full`` decodes media to tell their size, duration and colour; ``brief`` never does."""
    decode_bytes: int = 32 * 1024 * 1024
    """Largest medium that is decoded; nothing of a larger one is kept in memory."""
    record_bodies: bool = False
    """Keep the raw bodies of generateContent for ``/emulator/ledger/bodies``."""
    limits: Limits = Limits()
    latency: Latency = Latency()
    processing_seconds: dict[str, float] = msgspec.field(default_factory=lambda: {"video/*": 1.0})
    """How long a new file is PROCESSING, by MIME type or ``image/*``; 0 where nothing matches."""
    quota: list[Quota] = []
    fault: list[Fault] = []

    def processing_seconds_of(self, mime_type: str) -> float:
        """How long a new file of this type is PROCESSING."""
        for pattern in (mime_type, mime_type.split("/", maxsplit=1)[0] + "/*", "*"):
            if pattern in self.processing_seconds:
                return self.processing_seconds[pattern]
        return 0.0


def load_plan(path: Path | str) -> Plan:
    """The plan in a TOML file; ValueError in one sentence where it is not a plan, OSError where it cannot be read."""
    return parse_plan(Path(path).read_bytes(), str(path))


def parse_plan(raw: bytes, source: str = "plan") -> Plan:
    """The plan in TOML text."""
    try:
        plan = msgspec.toml.decode(raw, type=Plan)
    except msgspec.DecodeError as problem:
        raise ValueError(f"{source}: {_explain(str(problem))}") from None
    check_faults(plan, source)
    return plan


def check_faults(plan: Plan, source: str = "plan") -> None:
    """ValueError where a fault has an unknown kind or a route that its kind cannot strike."""
    from pipeline.emulator.fault_kinds import KINDS
    from pipeline.emulator.routing import ROUTES

    for number, fault in enumerate(plan.fault, start=1):
        place = f"{source}: fault {number}"
        if fault.kind not in KINDS:
            raise ValueError(f"{place}: unknown kind {fault.kind!r}{_nearest(fault.kind, KINDS)}.")
        possible = KINDS[fault.kind].routes or ROUTES
        for route in routes_of(fault):
            if route != "*" and route not in ROUTES:
                raise ValueError(f"{place}: unknown route {route!r}{_nearest(route, ROUTES)}.")
            if route != "*" and route not in possible:
                raise ValueError(f"{place}: {fault.kind} strikes only {', '.join(sorted(possible))}.")


def routes_of(fault: Fault) -> list[str]:
    """The routes a fault names."""
    return [fault.route] if isinstance(fault.route, str) else fault.route


def _explain(problem: str) -> str:
    unknown = re.search(r"unknown field `(.*?)`(?: - at `\$\.?(.*?)`)?$", problem)
    if not unknown:
        return problem.rstrip(".") + "."
    name, place = unknown.groups()
    numbered = re.sub(r"\[(\d+)\]", lambda index: f" {int(index[1]) + 1}", place or "")
    inside = f" in {numbered}" if numbered else ""
    return f"unknown key {name!r}{inside}{_nearest(name, _known_keys())}."


def _known_keys() -> list[str]:
    tables: list[Any] = [Plan, Fault, Quota, Latency, Lognormal, Limits]
    return [name for table in tables for name in table.__struct_fields__]


def _nearest(name: str, known: Any) -> str:
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"; the nearest known one is {matches[0]!r}" if matches else ""
