"""Decides what holds a run back: at one moment, over the whole of it, and in plain words; pure."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from pipeline.moment import Hold, Moment, Occupied
from pipeline.report.refusals import FILE_API, Quota

FULL_SHARE: Final = 0.9
"""A stage whose workers are busy to this part is full."""

CPU_FULL_SHARE: Final = 0.85
"""The event loop does nothing but work; the rest of its time goes to waiting for other threads of the process."""

DISK_SHARE: Final = 0.5
"""Of generation's workers: when so many wait for the disk, it is the disk that is slow and not the answers."""

PREPARING_SHARE: Final = 0.5
"""Of generation's workers: when so many build requests, it is that which is slow."""

NAMED_SHARE: Final = 0.25
"""What held the run back for less of its time is not worth naming."""


class Blame(NamedTuple):
    """What held the run back: a stage (``machine`` for the CPU), what of it, and for quotas whose."""

    stage: str
    cause: str
    model: str = ""


class Bottleneck(msgspec.Struct, frozen=True, kw_only=True):
    """What held the run back for most of its time: ``share`` of it. Without a stage there was none."""

    stage: str | None = None
    cause: str | None = None
    share: float = 0.0
    sentence: str = "none: nothing held the run back for long"
    shares: dict[str, float] = {}
    """Everything that did, as ``stage: cause``."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What sentences quote: the run's settings, and what was seen."""

    concurrency: int
    uploads: int
    rpm: float | None = None
    tpm: float | None = None
    latency_seconds: float = 0.0
    """Mean time of a generate call."""
    slots: int = 0
    """Most generate calls at once, last."""
    quotas: Mapping[str, Mapping[str, Quota]] = {}


def blame(moment: Moment, *, loop_busy_share: float) -> Blame | None:
    """What holds the run back at ``moment``: the last full stage, for what comes after it waits for more, and what
    comes before it waits for room. None where no stage is full.

    ``loop_busy_share`` is the part of the time since the last moment for which the event loop had work.
    """
    if loop_busy_share >= CPU_FULL_SHARE:
        return Blame("machine", "cpu")
    if moment.results.waiting >= DISK_SHARE * moment.generation.workers:
        return Blame("results", "disk")
    return _generation(moment) or _before_generation(moment) or _last_items(moment)


def _generation(moment: Moment) -> Blame | None:
    pressure = moment.generating
    if pressure.held_by is Hold.OUTAGE:
        return Blame("generation", Hold.OUTAGE)
    if moment.bodies_waiting:
        return Blame("generation", "memory")
    if pressure.held_by is not None:
        return Blame("generation", pressure.held_by, pressure.model)
    if _is_full(moment.generation):
        return Blame("generation", Hold.CONCURRENCY)
    if pressure.backing_off + pressure.in_flight >= FULL_SHARE * moment.generation.workers:
        return Blame("generation", "back_off")
    if moment.preparing >= PREPARING_SHARE * moment.generation.workers:
        return Blame("generation", "media")
    return None


def _before_generation(moment: Moment) -> Blame | None:
    if _is_full(moment.activation):
        return Blame("activation", "processing")
    if moment.uploading.held_by is Hold.OUTAGE:
        return Blame("upload", Hold.OUTAGE)
    if moment.is_short_of_space:
        return Blame("upload", "storage")
    if _is_full(moment.upload):
        return Blame("upload", moment.uploading.held_by or "network")
    return Blame("manifest", "source") if moment.manifest.busy else None


def _last_items(moment: Moment) -> Blame | None:
    """No stage is full and no more items come: what the last ones wait for, where that is no work."""
    if moment.generating.backing_off > moment.generating.in_flight:
        return Blame("generation", "back_off")
    if moment.activation.busy and not moment.upload.busy and not moment.generation.busy:
        return Blame("activation", "processing")
    return None


def _is_full(stage: Occupied) -> bool:
    return stage.busy >= FULL_SHARE * stage.workers


def judge(seconds_by_blame: Mapping[Blame, float], *, of_seconds: float, figures: Figures) -> Bottleneck:
    """The bottleneck of a run of ``of_seconds``."""
    if not seconds_by_blame or not of_seconds:
        return Bottleneck()
    ranked = sorted(seconds_by_blame.items(), key=lambda each: each[1], reverse=True)
    shares = _by_name((blamed, round(seconds / of_seconds, 3)) for blamed, seconds in ranked)
    worst, seconds = ranked[0]
    share = round(seconds / of_seconds, 3)
    if share < NAMED_SHARE:
        return Bottleneck(shares=shares)
    return Bottleneck(
        stage=worst.stage, cause=worst.cause, share=share, sentence=sentence(worst, figures), shares=shares
    )


def _by_name(shares: Iterable[tuple[Blame, float]]) -> dict[str, float]:
    named: dict[str, float] = {}
    for blamed, share in shares:
        name = f"{blamed.stage}: {blamed.cause}"
        named[name] = round(named.get(name, 0.0) + share, 3)
    return named


def sentence(blamed: Blame, figures: Figures) -> str:
    """``blamed`` in plain words."""
    if blamed.stage == "machine":
        return "the machine's CPU"
    what = _of_generation(blamed, figures) if blamed.stage == "generation" else _of_another(blamed, figures)
    return f"{blamed.stage}: {what}"


def _of_generation(blamed: Blame, figures: Figures) -> str:
    return {
        Hold.REQUESTS: _quota(blamed, "requests", figures),
        Hold.TOKENS: _quota(blamed, "input tokens", figures),
        Hold.RPM: f"your cap of {figures.rpm or 0:,.0f} requests a minute (--rpm)",
        Hold.TPM: f"your cap of {figures.tpm or 0:,.0f} input tokens a minute (--tpm)",
        Hold.SLOW_START: "the careful start while the quota is unknown",
        Hold.OVERLOAD: f"an overloaded service, which is asked no more than {figures.slots} times at once",
        Hold.OUTAGE: "an outage of the service",
        "back_off": "failures of the service, which are sent again after a while",
        "memory": "the memory for request bodies",
        "media": "reading media into requests",
    }.get(
        blamed.cause,
        f"the service's latency ({figures.latency_seconds:.1f} s) at --concurrency {figures.concurrency}",
    )


def _quota(blamed: Blame, units: str, figures: Figures) -> str:
    quota = figures.quotas.get(blamed.model, {}).get(blamed.cause)
    of_model = f" for {blamed.model}" if len(figures.quotas.keys() - {FILE_API}) > 1 else ""
    if quota is None or quota.limit is None:
        return f"the quota of {units} a minute{of_model}"
    how_many = f"{'the quota of' if quota.is_told else 'a quota of about'} {quota.limit:,}"
    return f"{how_many} {units} a minute{of_model}"


def _of_another(blamed: Blame, figures: Figures) -> str:
    return {
        ("results", "disk"): "the disk",
        ("activation", "processing"): "the service's processing of uploaded files",
        ("upload", Hold.OUTAGE): "an outage of the File API",
        ("upload", Hold.REFUSALS): "refusals of the File API (429)",
        ("upload", Hold.OVERLOAD): "an overloaded File API",
        ("upload", "storage"): "space in the project's file storage",
        ("manifest", "source"): "reading SOURCE and hashing its media",
    }.get((blamed.stage, blamed.cause), f"the network and the File API at --uploads {figures.uploads}")
