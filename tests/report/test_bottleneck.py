"""What holds a run back: at one moment, over the whole of it, and in words."""

from typing import Any

import pytest

from pipeline.moment import Hold, Moment, Occupied, Pressure
from pipeline.report.bottleneck import Blame, Bottleneck, Figures, blame, judge, sentence
from pipeline.report.refusals import FILE_API, Quota

WORKERS = {"manifest": 1, "upload": 16, "activation": 512, "generation": 64, "results": 1}
MODEL = "gemini-3.8-flash"


def moment(**given: Any) -> Moment:
    """Idle stages, but for what is given: a stage as (busy, waiting)."""
    stages = {
        name: Occupied(workers=workers, busy=busy, waiting=waiting)
        for name, workers in WORKERS.items()
        for busy, waiting in (given.pop(name, (0, 0)),)
    }
    return Moment(**stages, **given)


def held(by: Hold, **given: Any) -> Pressure:
    """Generate calls that wait."""
    return Pressure(held_by=by, waiting=60, in_flight=4, model=MODEL, **given)


BACKING_OFF = Pressure(backing_off=60, in_flight=3)


@pytest.mark.parametrize(
    ("seen", "busy_share", "blamed"),
    [
        pytest.param(moment(), 0.1, None, id="nothing to do"),
        pytest.param(moment(generation=(64, 64)), 0.99, ("machine", "cpu", ""), id="the CPU comes first"),
        pytest.param(moment(generation=(10, 0), results=(1, 40)), 0.5, ("results", "disk", ""), id="slow disk"),
        pytest.param(
            moment(generation=(4, 60), generating=held(Hold.REQUESTS), upload=(16, 99)),
            0.1,
            ("generation", "requests_per_minute", MODEL),
            id="a quota, and uploads that wait for room",
        ),
        pytest.param(
            moment(generating=held(Hold.TPM)), 0.1, ("generation", "tpm", MODEL), id="a cap of the user's own"
        ),
        pytest.param(moment(generating=Pressure(held_by=Hold.OUTAGE)), 0.0, ("generation", "outage", ""), id="outage"),
        pytest.param(moment(generation=(63, 9)), 0.2, ("generation", "concurrency", ""), id="latency"),
        pytest.param(moment(generation=(30, 9), bodies_waiting=3), 0.2, ("generation", "memory", ""), id="memory"),
        pytest.param(moment(generation=(3, 60), generating=BACKING_OFF), 0.0, ("generation", "back_off", ""), id="5xx"),
        pytest.param(moment(generation=(3, 50), preparing=50), 0.6, ("generation", "media", ""), id="base64"),
        pytest.param(moment(upload=(16, 40), manifest=(1, 0)), 0.1, ("upload", "network", ""), id="slow uploads"),
        pytest.param(
            moment(upload=(16, 40), uploading=Pressure(held_by=Hold.OUTAGE)),
            0.0,
            ("upload", "outage", ""),
            id="uploads down",
        ),
        pytest.param(
            moment(upload=(15, 40), uploading=Pressure(held_by=Hold.OVERLOAD)),
            0.0,
            ("upload", "overload", ""),
            id="uploads shed",
        ),
        pytest.param(moment(upload=(3, 9), is_short_of_space=True), 0.0, ("upload", "storage", ""), id="storage full"),
        pytest.param(
            moment(upload=(3, 0), manifest=(1, 0), activation=(9, 0)), 0.3, ("manifest", "source", ""), id="hashing"
        ),
        pytest.param(moment(activation=(500, 30), upload=(16, 9)), 0.1, ("activation", "processing", ""), id="full"),
        pytest.param(moment(activation=(40, 0)), 0.0, ("activation", "processing", ""), id="only PROCESSING is left"),
        pytest.param(moment(activation=(40, 0), generation=(20, 0)), 0.0, None, id="something goes on beside"),
        pytest.param(
            moment(generating=Pressure(backing_off=1)), 0.0, ("generation", "back_off", ""), id="the last item"
        ),
        pytest.param(
            moment(generating=Pressure(backing_off=1), upload=(16, 9)),
            0.0,
            ("upload", "network", ""),
            id="one back-off says nothing while uploads are full",
        ),
        pytest.param(moment(generation=(12, 0)), 0.1, None, id="the last answers"),
    ],
)
def test_a_moment(seen: Moment, busy_share: float, blamed: tuple[str, str, str] | None) -> None:
    """The last full stage is to blame."""
    assert blame(seen, loop_busy_share=busy_share) == blamed


FIGURES = Figures(
    concurrency=64,
    uploads=16,
    rpm=100.0,
    tpm=2e6,
    latency_seconds=4.23,
    slots=21,
    quotas={
        MODEL: {"requests_per_minute": Quota(limit=1500, is_told=True), "tokens_per_minute": Quota(limit=123456)},
        FILE_API: {"storage_bytes": Quota(refused=1)},
    },
)


@pytest.mark.parametrize(
    ("blamed", "words"),
    [
        (Blame("generation", Hold.REQUESTS, MODEL), "generation: the quota of 1,500 requests a minute"),
        (Blame("generation", Hold.TOKENS, MODEL), "generation: a quota of about 123,456 input tokens a minute"),
        (Blame("generation", Hold.REQUESTS, "other"), "generation: the quota of requests a minute"),
        (Blame("generation", Hold.RPM), "generation: your cap of 100 requests a minute (--rpm)"),
        (Blame("generation", Hold.TPM), "generation: your cap of 2,000,000 input tokens a minute (--tpm)"),
        (Blame("generation", Hold.CONCURRENCY), "generation: the service's latency (4.2 s) at --concurrency 64"),
        (
            Blame("generation", Hold.OVERLOAD),
            "generation: an overloaded service, which is asked no more than 21 times at once",
        ),
        (Blame("upload", "network"), "upload: the network and the File API at --uploads 16"),
        (Blame("upload", Hold.CONCURRENCY), "upload: the network and the File API at --uploads 16"),
        (Blame("upload", "storage"), "upload: space in the project's file storage"),
        (Blame("results", "disk"), "results: the disk"),
        (Blame("machine", "cpu"), "the machine's CPU"),
    ],
)
def test_words(blamed: Blame, words: str) -> None:
    """One plain sentence, with the figures that are known."""
    assert sentence(blamed, FIGURES) == words


def test_two_models_are_told_apart() -> None:
    """With more than one model the quota's is named."""
    both = Figures(concurrency=1, uploads=1, quotas={"a": {"requests_per_minute": Quota(limit=10)}, "b": {}})
    assert sentence(Blame("generation", Hold.REQUESTS, "a"), both).endswith("10 requests a minute for a")


def test_every_hold_has_words() -> None:
    """No cause falls back to the latency but the latency."""
    said = {hold: sentence(Blame("generation", hold), FIGURES) for hold in Hold if hold is not Hold.REFUSALS}
    assert [hold for hold, words in said.items() if "latency" in words] == [Hold.CONCURRENCY]


def test_a_run() -> None:
    """What took most of the time is named, with its share; the others are told beside it."""
    judged = judge(
        {Blame("upload", "network"): 2.0, Blame("generation", Hold.REQUESTS, MODEL): 7.0},
        of_seconds=10.0,
        figures=FIGURES,
    )
    assert (judged.stage, judged.cause, judged.share) == ("generation", "requests_per_minute", 0.7)
    assert judged.shares == {"generation: requests_per_minute": 0.7, "upload: network": 0.2}


def test_two_models_of_one_cause_are_one_share() -> None:
    """Shares go by stage and cause."""
    blamed = {Blame("generation", Hold.REQUESTS, model): 4.0 for model in "ab"}
    assert judge(blamed, of_seconds=10.0, figures=FIGURES).shares == {"generation: requests_per_minute": 0.8}


@pytest.mark.parametrize("blamed", [{}, {Blame("upload", "network"): 2.0}])
def test_what_was_short_is_not_named(blamed: dict[Blame, float]) -> None:
    """A run that nothing held back for long has no bottleneck, and says so."""
    judged = judge(blamed, of_seconds=10.0, figures=FIGURES)
    assert (judged.stage, judged.sentence) == (None, Bottleneck().sentence)
