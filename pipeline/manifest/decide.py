"""What becomes of an item or a rejected row, by what the ledger knows of its key; pure."""

from enum import StrEnum

import msgspec

from pipeline.errors import Failure
from pipeline.ledger.api import Admission, Mark
from pipeline.manifest.fingerprint import media_sha256
from pipeline.records import Item, Rejected, Status
from pipeline.spec import Selection


class Decision(StrEnum):
    """What ``ItemAdmitted`` tells."""

    SEND = "send"
    UNCHANGED = "unchanged"
    """Done, and nothing about it has changed."""
    KEPT = "kept"
    """Done, and though its prompt or settings changed, its line stays."""
    NOT_FOUND = "not_found"
    """Done, but its media can't be found now: it counts as failed in this run, and its line stays."""
    FAILED_BEFORE = "failed_before"
    """Its line says failed or blocked, and nothing about it has changed."""
    REJECTED = "rejected"
    """It gets a failed line."""
    BEYOND_LIMIT = "beyond_limit"


def decide(candidate: Item | Rejected, admission: Admission, selection: Selection) -> tuple[Decision, Item | Rejected]:
    """The decision, and the candidate as it goes on."""
    mark = _counted(admission.mark, selection)
    if isinstance(candidate, Rejected):
        return _decide_rejected(candidate, mark, selection), candidate
    if mark is not None and mark.fingerprint == candidate.fingerprint:
        if mark.status is Status.SUCCEEDED:
            return Decision.UNCHANGED, candidate
        if not mark.retryable and not selection.retry_failed:
            return Decision.FAILED_BEFORE, candidate
        candidate = msgspec.structs.replace(candidate, ambiguous_runs=mark.ambiguous_runs)
    elif selection.on_change == "keep" and _changed_but_for_media(candidate, mark):
        return Decision.KEPT, candidate
    if admission.in_doubt and selection.in_doubt == "hold":
        return Decision.REJECTED, _held(candidate)
    return Decision.SEND, candidate


def is_changed(candidate: Item | Rejected, admission: Admission, selection: Selection) -> bool:
    """Whether it is a done item whose prompt, model or settings changed while its media did not."""
    return isinstance(candidate, Item) and _changed_but_for_media(candidate, _counted(admission.mark, selection))


def duplicate(candidate: Item | Rejected) -> Rejected:
    """A later row with a key that an earlier one has."""
    return Rejected(
        key=f"{candidate.key}#line:{candidate.line}",
        position=candidate.position,
        line=candidate.line,
        failure=Failure(
            stage="manifest",
            kind="duplicate_key",
            message=f"line {candidate.line}: an earlier row has the key {candidate.key!r} already",
        ),
        media=candidate.media,
        paths=candidate.paths if isinstance(candidate, Rejected) else (),
        model=candidate.model,
        template=candidate.template,
    )


def _counted(mark: Mark | None, selection: Selection) -> Mark | None:
    """The mark, unless it is the emulator's and this run is not."""
    return None if mark is None or (mark.emulated and not selection.emulated) else mark


def _decide_rejected(rejected: Rejected, mark: Mark | None, selection: Selection) -> Decision:
    if mark is not None and mark.status is Status.SUCCEEDED and rejected.failure.kind == "missing_file":
        return Decision.NOT_FOUND  # a disk that is not mounted tonight must not cost a paid answer
    known = (
        mark is not None
        and mark.status is Status.FAILED
        and mark.kind == rejected.failure.kind
        and mark.fingerprint == rejected.fingerprint
    )
    return Decision.FAILED_BEFORE if known and not selection.retry_failed else Decision.REJECTED


def _changed_but_for_media(item: Item, mark: Mark | None) -> bool:
    return (
        mark is not None
        and mark.status is Status.SUCCEEDED
        and mark.fingerprint != item.fingerprint
        and mark.media_sha256 == media_sha256(item.media)
    )


def _held(item: Item) -> Rejected:
    """An item whose call may have been paid for when an earlier run was killed."""
    return Rejected(
        key=item.key,
        position=item.position,
        line=item.line,
        failure=Failure(
            stage="generation",
            kind="in_doubt",
            message="an earlier run was killed while this call was out, perhaps billed (--retry-failed resends)",
        ),
        media=item.media,
        model=item.model,
        template=item.template,
        prompt_sha256=item.prompt_sha256,
        fingerprint=item.fingerprint,
    )
