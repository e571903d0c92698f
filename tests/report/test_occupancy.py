"""Moments added up."""

import pytest

from pipeline.moment import Hold, Moment, Occupied, Pressure
from pipeline.report.bottleneck import Figures
from pipeline.report.occupancy import STAGES, Occupancy

FIGURES = Figures(concurrency=4, uploads=2)


def moment(*, in_flight: int, waiting: int, held_by: Hold | None = None) -> Moment:
    """A moment of generation."""
    return Moment(
        manifest=Occupied(workers=1),
        upload=Occupied(workers=2),
        activation=Occupied(workers=8),
        generation=Occupied(workers=4, busy=in_flight, waiting=waiting),
        results=Occupied(workers=1),
        generating=Pressure(in_flight=in_flight, held_by=held_by),
    )


def test_shares_and_waits() -> None:
    """A moment counts for as long as it stands for; waiting is shared by the items that went through."""
    seen = Occupancy(FIGURES)
    seen.add(moment(in_flight=4, waiting=10), seconds=3.0, loop_busy_seconds=0.3)
    seen.add(moment(in_flight=0, waiting=0), seconds=1.0, loop_busy_seconds=0.1)
    generation = seen.stages(items=6)["generation"]
    assert (generation.busy_share, generation.waiting, generation.wait_seconds) == (0.75, 7.5, 5.0)
    assert seen.loop_busy_share == 0.1
    bottleneck = seen.bottleneck(requests=6, quotas={})
    assert (bottleneck.cause, bottleneck.share) == ("concurrency", 0.75)
    assert "(2.0 s) at --concurrency 4" in bottleneck.sentence


def test_without_a_moment() -> None:
    """A run shorter than a sample has every stage, and no bottleneck."""
    seen = Occupancy(FIGURES)
    assert list(seen.stages(items=0)) == list(STAGES)
    assert seen.bottleneck(requests=0, quotas={}).stage is None
    assert seen.loop_busy_share == 0.0


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_no_time_is_no_moment(seconds: float) -> None:
    """Two samples at one time don't divide by nothing."""
    seen = Occupancy(FIGURES)
    seen.add(moment(in_flight=4, waiting=0, held_by=Hold.REQUESTS), seconds=seconds, loop_busy_seconds=0.0)
    assert seen.bottleneck(requests=1, quotas={}).stage is None
