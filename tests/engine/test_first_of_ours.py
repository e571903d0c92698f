"""Which error of a nest of task groups tells how the run ended."""

import pytest

from pipeline.engine.flow import first_of_ours
from pipeline.errors import StopEarly, StopForHuman

STOP = StopForHuman("the disk is full")


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (STOP, STOP),
        (ExceptionGroup("", [STOP]), STOP),
        (ExceptionGroup("", [ExceptionGroup("", [STOP]), StopEarly("later")]), STOP),
        (ValueError(), None),
        (ExceptionGroup("", [ExceptionGroup("", [ValueError()])]), None),
        (ExceptionGroup("", [STOP, ExceptionGroup("", [ValueError()])]), None),
    ],
)
def test_the_first_of_ours_speaks_where_there_is_no_other(error: BaseException, ours: BaseException | None) -> None:
    """A foreign error is a bug, and must not hide behind a full disk."""
    assert first_of_ours(error) is ours
