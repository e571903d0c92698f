"""What becomes of an item, by what the ledger knows: a table."""

from typing import Any

import msgspec
import pytest

from pipeline.errors import Failure
from pipeline.ledger.api import Admission, Mark
from pipeline.manifest.decide import Decision, decide, duplicate, is_changed
from pipeline.manifest.fingerprint import media_sha256
from pipeline.records import Item, Rejected, Status
from pipeline.spec import Selection

ITEM = Item(
    key="a", position=1, line=2, model="m", media=(), prompt="p", prompt_sha256="ps", fingerprint="same", template="t"
)
BAD = Rejected(key="a", position=1, line=2, failure=Failure(stage="manifest", kind="missing_file", message="x"))
SAME_MEDIA = media_sha256(())


def mark(**changes: Any) -> Mark:
    done = Mark(
        key="a",
        status=Status.SUCCEEDED,
        fingerprint="same",
        kind=None,
        retryable=False,
        emulated=False,
        offset=0,
        size_bytes=1,
        media_sha256=SAME_MEDIA,
    )
    return msgspec.structs.replace(done, **changes)


FAILED = {"status": Status.FAILED, "kind": "timeout"}
OTHER = {"fingerprint": "other"}


@pytest.mark.parametrize(
    ("known", "selection", "expected"),
    [
        (None, {}, Decision.SEND),
        (mark(), {}, Decision.UNCHANGED),
        (mark(), {"retry_failed": True}, Decision.UNCHANGED),
        (mark(), {"emulated": True}, Decision.UNCHANGED),
        (mark(emulated=True), {}, Decision.SEND),
        (mark(emulated=True), {"emulated": True}, Decision.UNCHANGED),
        (mark(emulated=True, **OTHER), {"on_change": "keep"}, Decision.SEND),
        (mark(**FAILED), {}, Decision.FAILED_BEFORE),
        (mark(**FAILED), {"retry_failed": True}, Decision.SEND),
        (mark(**FAILED, retryable=True), {}, Decision.SEND),
        (mark(**FAILED, **OTHER), {}, Decision.SEND),
        (mark(**FAILED, **OTHER), {"on_change": "keep"}, Decision.SEND),
        (mark(**FAILED, fingerprint=None), {}, Decision.SEND),
        (mark(status=Status.BLOCKED, kind="safety"), {}, Decision.FAILED_BEFORE),
        (mark(status=Status.BLOCKED, kind="safety"), {"retry_failed": True}, Decision.SEND),
        (mark(status=Status.BLOCKED, kind="safety", **OTHER), {}, Decision.SEND),
        (mark(**OTHER), {}, Decision.SEND),
        (mark(**OTHER), {"on_change": "stop"}, Decision.SEND),
        (mark(**OTHER), {"on_change": "keep"}, Decision.KEPT),
        (mark(**OTHER, media_sha256="other"), {"on_change": "keep"}, Decision.SEND),
        (mark(**OTHER, media_sha256=None), {"on_change": "keep"}, Decision.SEND),
    ],
)
def test_items(known: Mark | None, selection: dict[str, Any], expected: Decision) -> None:
    """Fingerprint, status and selection decide."""
    decision, subject = decide(ITEM, Admission(duplicate=False, mark=known), Selection(**selection))
    assert decision is expected
    assert subject == ITEM


@pytest.mark.parametrize(
    ("known", "selection", "expected"),
    [
        (None, {}, Decision.REJECTED),
        (mark(), {}, Decision.NOT_FOUND),
        (mark(emulated=True), {}, Decision.REJECTED),
        (mark(status=Status.FAILED, kind="missing_file", fingerprint=None), {}, Decision.FAILED_BEFORE),
        (mark(status=Status.FAILED, kind="missing_file", fingerprint=None), {"retry_failed": True}, Decision.REJECTED),
        (mark(status=Status.FAILED, kind="missing_file", fingerprint=None, emulated=True), {}, Decision.REJECTED),
        (mark(status=Status.FAILED, kind="missing_file"), {}, Decision.REJECTED),
        (mark(status=Status.FAILED, kind="empty_file", fingerprint=None), {}, Decision.REJECTED),
    ],
)
def test_rejected(known: Mark | None, selection: dict[str, Any], expected: Decision) -> None:
    """A failed line that would say the same again is not written again."""
    assert decide(BAD, Admission(duplicate=False, mark=known), Selection(**selection)) == (expected, BAD)


def test_a_done_row_that_became_wrong_gets_its_failed_line() -> None:
    """Only media that can't be found leave the answer where it is; a row that is wrong says so."""
    bad = msgspec.structs.replace(BAD, failure=Failure(stage="manifest", kind="bad_row", message="x"))
    assert decide(bad, Admission(duplicate=False, mark=mark()), Selection())[0] is Decision.REJECTED


def test_in_doubt() -> None:
    """An item that a killed run may have paid for is sent again, or held where the user says so."""
    doubtful = Admission(duplicate=False, mark=None, in_doubt=True)
    assert decide(ITEM, doubtful, Selection())[0] is Decision.SEND
    decision, held = decide(ITEM, doubtful, Selection(in_doubt="hold"))
    assert decision is Decision.REJECTED
    assert isinstance(held, Rejected)
    assert (held.failure.kind, held.failure.stage, held.fingerprint) == ("in_doubt", "generation", "same")
    after = Admission(duplicate=False, mark=mark(status=Status.FAILED, kind="in_doubt"))
    assert decide(ITEM, after, Selection(in_doubt="hold"))[0] is Decision.FAILED_BEFORE
    assert decide(ITEM, after, Selection(in_doubt="hold", retry_failed=True))[0] is Decision.SEND


def test_ambiguous_runs_go_on_counting() -> None:
    """An unchanged item carries what earlier runs lost; a changed one begins anew."""
    lost = mark(**FAILED, retryable=True, ambiguous_runs=2)
    assert decide(ITEM, Admission(duplicate=False, mark=lost), Selection())[1].ambiguous_runs == 2  # type: ignore[union-attr]
    changed = msgspec.structs.replace(lost, fingerprint="other")
    assert decide(ITEM, Admission(duplicate=False, mark=changed), Selection())[1].ambiguous_runs == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (None, False),
        (mark(), False),
        (mark(**OTHER), True),
        (mark(**OTHER, media_sha256="other"), False),
        (mark(**OTHER, emulated=True), False),
        (mark(**OTHER, status=Status.FAILED), False),
    ],
)
def test_is_changed(known: Mark | None, expected: bool) -> None:
    """Only a done item whose media stayed the same counts as changed."""
    assert is_changed(ITEM, Admission(duplicate=False, mark=known), Selection()) is expected
    assert not is_changed(BAD, Admission(duplicate=False, mark=known), Selection())


@pytest.mark.parametrize("candidate", [ITEM, BAD])
def test_duplicates(candidate: Item | Rejected) -> None:
    """A later row with a key that is taken fails under a key of its own."""
    failed = duplicate(candidate)
    assert (failed.key, failed.line, failed.failure.kind) == ("a#line:2", 2, "duplicate_key")
    assert "line 2" in failed.failure.message
    assert failed.fingerprint is None
