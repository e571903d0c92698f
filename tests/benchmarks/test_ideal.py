"""The arithmetic that benchmarks are held against, by figures worked out by hand."""

import pytest

from pipeline.emulator.plan import Quota
from tests.benchmarks import ideal
from tests.benchmarks.service import PROMPT_TOKENS, Report, Service

BUCKET = Quota(requests_per_minute=600, window="token_bucket", burst=50)


@pytest.mark.parametrize(
    ("service", "items", "seconds"),
    [
        (Service(quota=Quota(requests_per_minute=6000, window="token_bucket", burst=100)), 2000, 19.0),
        (Service(quota=Quota(requests_per_minute=600, window="fixed"), window_phase_seconds=20.0), 2400, 160.0),
        (Service(quota=Quota(requests_per_minute=600, window="sliding")), 2400, 180.0),
        (Service(quota=Quota(input_tokens_per_minute=600 * PROMPT_TOKENS, window="sliding")), 2400, 180.0),
        (Service(quota=BUCKET), 550, 50.0),
        # 50 at once and 100 in 10 s, a full bucket of 50 after the outage, and 350 at its rate
        (Service(quota=BUCKET, outage=(10.0, 30.0)), 550, 65.0),
    ],
)
def test_span(service: Service, items: int, seconds: float) -> None:
    """The last call is let in when the quota, known to the letter, allows it."""
    assert ideal.span_seconds(service, items) == pytest.approx(seconds, abs=0.15)


def test_others_cost_their_share() -> None:
    """Of 600 a minute 400 are left."""
    assert ideal.span_seconds(Service(quota=BUCKET, others_rpm=200.0), 1050) == pytest.approx(150.0, abs=0.15)


def test_wall_is_the_busiest_stage_and_one_path() -> None:
    """Stages overlap; one item's path does not."""
    report = Report(upload_seconds=320.0, generate_seconds=640.0, longest_path_seconds=13.0)
    assert ideal.wall_seconds(report, uploads=16, concurrency=64) == 33.0
    assert ideal.wall_seconds(report, uploads=16, concurrency=32) == 33.0
    assert ideal.wall_seconds(report, uploads=32, concurrency=32) == 33.0
    assert ideal.wall_seconds(report, uploads=16, concurrency=16) == 53.0


def test_goodput_counts_from_the_first_minute_and_leaves_outages_out() -> None:
    """Ten a second are the quota; nine were used, and none in the outage."""
    each_second = [50] * 60 + [9] * 20 + [0] * 10 + [9] * 10 + [1]
    assert ideal.goodput(Service(quota=BUCKET, outage=(80.0, 90.0)), each_second) == pytest.approx(0.9)
    assert ideal.goodput(Service(quota=BUCKET), [10] * 30) is None


def test_recovery() -> None:
    """Eight of ten a second over ten seconds; never is None."""
    service = Service(quota=BUCKET, outage=(5.0, 10.0))
    assert ideal.recovery_seconds(service, [10] * 5 + [0] * 5 + [0] * 4 + [10] * 20) == 12.0
    assert ideal.recovery_seconds(service, [10] * 5 + [0] * 5 + [1] * 60) is None
