"""Refusals by quota, retries by cause, limits over time; and what a person reads of them."""

from datetime import UTC, datetime

from pipeline.clock import ManualClock
from pipeline.events import CallEnded, CallSent, Event, LimitLearnt, Refused, Retrying
from pipeline.report.bottleneck import Bottleneck
from pipeline.report.refusals import HISTORY_POINTS, Refusals
from pipeline.report.sentences import held_back, limits, trouble

NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)


def seen(*events: Event) -> Refusals:
    """What is noted of ``events``, a second apart."""
    clock = ManualClock(NOW)
    refusals = Refusals(clock)
    for event in events:
        refusals.notify(event)
        clock.advance(1)
    return refusals


def learnt(per_minute: int, *, is_told: bool = False) -> LimitLearnt:
    """A limit of requests."""
    return LimitLearnt(model="m", quota="requests_per_minute", per_minute=per_minute, is_told=is_told)


def retrying(route: str, cause: str) -> Retrying:
    """A call goes out again."""
    return Retrying(route=route, subject="k", cause=cause, wait_seconds=1.0, message="")


def test_limits_over_time() -> None:
    """The last value, whose word it is, and how it came about."""
    quota = seen(learnt(140), learnt(150, is_told=True)).quotas["m"]["requests_per_minute"]
    assert (quota.limit, quota.is_told) == (150, True)
    assert [(point.at, point.limit) for point in quota.history] == [
        ("2026-11-22T02:30:00.000Z", 140),
        ("2026-11-22T02:30:01.000Z", 150),
    ]


def test_a_long_history_stays_short_and_spans_the_run() -> None:
    """However often a limit changes."""
    history = seen(*(learnt(n) for n in range(1, 1001))).quotas["m"]["requests_per_minute"].history
    assert HISTORY_POINTS / 2 <= len(history) <= HISTORY_POINTS
    assert (history[0].limit, history[-1].limit) == (1, 1000)


def test_refusals_by_quota() -> None:
    """A 429 counts for each quota that it names; calls without a model are the File API's."""
    quotas = seen(
        Refused(route="generate", model="m", quotas=("requests_per_minute", "tokens_per_minute")),
        Refused(route="generate", model="m", quotas=("requests_per_minute",)),
        Refused(route="upload_start", model="", quotas=("storage_bytes",)),
    ).quotas
    counts = {(model, name): quota.refused for model, of_model in quotas.items() for name, quota in of_model.items()}
    assert counts == {
        ("m", "requests_per_minute"): 2,
        ("m", "tokens_per_minute"): 1,
        ("File API", "storage_bytes"): 1,
    }
    assert quotas["m"]["requests_per_minute"].limit is None


def test_retries_by_stage_and_cause() -> None:
    """Routes are told by their stage; an item that goes round again tells its own."""
    assert seen(
        retrying("generate", "unavailable"),
        retrying("generate", "unavailable"),
        retrying("upload_chunk", "network"),
        retrying("upload_query", "network"),
        retrying("activation", "stuck_processing"),
    ).retries_by_cause == {
        "generation": {"unavailable": 2},
        "upload": {"network": 2},
        "activation": {"stuck_processing": 1},
    }


def test_hot_events_are_not_listened_to() -> None:
    """There are thousands of them a second."""
    listener = Refusals(ManualClock(NOW)).listener
    assert not any(listener(kind) for kind in (CallSent, CallEnded))
    assert all(listener(kind) for kind in (Refused, LimitLearnt, Retrying))


def test_for_a_person() -> None:
    """A line each, and none where nothing was."""
    both = seen(
        learnt(1500, is_told=True),
        Refused(route="generate", model="m", quotas=("requests_per_minute",)),
        retrying("generate", "network"),
        retrying("generate", "unavailable"),
        retrying("generate", "unavailable"),
    )
    assert limits(both.quotas) == ["m: 1,500 requests a minute"]
    assert limits(seen(learnt(1500)).quotas) == ["m: about 1,500 requests a minute"]
    assert trouble(both.quotas, both.retries_by_cause) == [
        "sent again after: 2 unavailable (generation), 1 network (generation); refused: 1 by requests a minute"
    ]
    assert trouble({}, {}) == []
    assert held_back(Bottleneck()) == []
    assert held_back(Bottleneck(stage="upload", cause="network", share=0.5, sentence="upload: x")) == [
        "held back by upload: x (50% of the time)"
    ]
