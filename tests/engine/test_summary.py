"""What the counts and the exit code say."""

import pytest

from pipeline.events import CallEnded, CallSent, ItemAdmitted, ItemCommitted, SourceRead
from pipeline.report.summary import Counting


def committed(status: str, *, kind: str | None = None, stage: str | None = None, attempts: int = 1) -> ItemCommitted:
    """An item's line is durable."""
    return ItemCommitted(
        key="k",
        status=status,
        stage=stage,
        kind=kind,
        message=None,
        attempts=attempts,
        prompt_tokens=10,
        output_tokens=5,
        thoughts_tokens=2,
        cached_tokens=0,
        total_tokens=17,
        seconds=1.0,
    )


def counted(*events: object, limited: bool = False) -> Counting:
    """A Counting that has seen ``events``."""
    counting = Counting(limited=limited)
    for event in events:
        counting.notify(event)  # type: ignore[arg-type]
    return counting


SENT = ItemAdmitted(key="k", decision="send")
FAILED_BEFORE = ItemAdmitted(key="k", decision="failed_before")
BAD_ROW = (ItemAdmitted(key="k", decision="rejected"), committed("failed", kind="bad_row", stage="manifest"))


def test_every_item_is_in_exactly_one_count() -> None:
    """The counts add up to the total, and what was admitted but not committed is left."""
    counting = counted(
        SENT, SENT, SENT, SENT, FAILED_BEFORE, ItemAdmitted(key="k", decision="unchanged"), *BAD_ROW,
        committed("succeeded"), committed("blocked", kind="safety"), committed("failed", kind="timeout"),
        ItemAdmitted(key="k", decision="beyond_limit"), ItemAdmitted(key="k", decision="not_found"),
        SourceRead(total=8, skipped={".md": 2, ".txt": 1}),
    )  # fmt: skip
    items = counting.items
    assert (items.total, items.succeeded, items.failed_now, items.blocked) == (8, 1, 3, 1)
    assert (items.failed_before, items.unchanged, items.left, items.skipped) == (1, 1, 1, 3)
    assert items.total == (
        items.succeeded + items.failed_now + items.blocked + items.failed_before + items.unchanged + items.left
    )
    assert counting.errors == {"bad_row": 1, "safety": 1, "timeout": 1, "missing_file": 1}


@pytest.mark.parametrize(
    ("events", "limited", "exit_code"),
    [
        ([], False, 0),
        ([SENT, committed("succeeded")], False, 0),
        ([SENT, committed("blocked", kind="safety")], False, 1),
        ([FAILED_BEFORE], False, 1),
        ([FAILED_BEFORE, SENT, committed("succeeded")], True, 0),
        ([*BAD_ROW, SENT, committed("succeeded")], True, 0),
        ([*BAD_ROW], False, 1),
        ([SENT, committed("failed", kind="timeout", stage="generation")], True, 1),
    ],
)
def test_exit_code(events: list[object], limited: bool, exit_code: int) -> None:
    """Failures of earlier runs count too; with a limit only the chosen ones do."""
    assert counted(*events, limited=limited).exit_code() == exit_code


def test_requests_are_generate_calls() -> None:
    """Uploads and polls are not requests in the summary's sense; 429s are refusals."""
    counting = counted(
        CallSent(route="upload_start", subject="a"),
        CallSent(route="generate", subject="a"),
        CallEnded(route="generate", subject="a", status=429, seconds=0.1),
        CallSent(route="generate", subject="a"),
        SENT,
        committed("succeeded", attempts=2),
    )
    assert (counting.requests, counting.refused, counting.retries) == (2, 1, 1)


def test_a_survey_tells_what_was_not_read() -> None:
    """A run that ended early counts the rest of SOURCE by its lines, and the counts still add up."""
    counting = counted(SENT, committed("succeeded"), ItemAdmitted(key="k", decision="unchanged"))
    counting.correct(total=10, succeeded=4, left=5)
    items = counting.items
    assert (items.total, items.left, items.unchanged, items.failed_before) == (10, 5, 3, 1)


def test_a_survey_counts_no_item_twice() -> None:
    """Of ten done items that all changed, one was sent again and two are left: their old lines don't count."""
    counting = counted(SENT, committed("succeeded"), SENT, SENT)
    counting.correct(total=10, succeeded=10, left=0)
    items = counting.items
    assert (items.total, items.succeeded, items.left, items.unchanged, items.failed_before) == (10, 1, 2, 7, 0)
