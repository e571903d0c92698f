"""An outcome becomes one line of results.jsonl, and a line becomes what the ledger knows of it; pure."""

import re
from collections.abc import Sequence
from hashlib import sha256

import msgspec

from pipeline.clock import timestamp
from pipeline.errors import Failure
from pipeline.ledger.api import Mark
from pipeline.records import Answer, Item, Json, MediaRecord, Outcome, Rejected, ResultLine, Status

EMULATOR = "emulator"
AMBIGUOUS_RUNS_ALLOWED = 3
UNREAD = frozenset({"missing_file", "source_changed"})

_WRONG_ROW_KEY = re.compile(r"(?:.*#)?line:\d+", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


def line_of(outcome: Outcome, backend: str) -> ResultLine:
    """The result line of an outcome."""
    subject = outcome.subject
    answer = outcome.answer or Answer()
    ambiguous_runs, failure = _weigh(outcome)
    return ResultLine(
        key=subject.key,
        status=outcome.status,
        text=answer.text,
        data=answer.data,
        media=_media_records(outcome),
        model=subject.model,
        model_version=answer.model_version,
        response_id=answer.response_id,
        finish_reason=answer.finish_reason,
        safety_ratings=answer.safety_ratings,
        usage=answer.usage,
        attempts=outcome.attempts,
        template=subject.template,
        prompt_sha256=subject.prompt_sha256,
        # of media that could not be read as they were hashed, it says nothing: the next run looks again
        fingerprint=None if failure and failure.kind in UNREAD else subject.fingerprint,
        backend=backend,
        line=subject.line,
        started_at=timestamp(outcome.started_at),
        finished_at=timestamp(outcome.finished_at),
        error=failure,
        ambiguous_runs=ambiguous_runs,
    )


def encode(line: ResultLine) -> bytes:
    """The line's bytes with its newline. JSON escapes every line break inside strings, and knows no NaN."""
    try:
        return msgspec.json.encode(line) + b"\n"
    except UnicodeEncodeError:
        return msgspec.json.encode(_without_surrogates(msgspec.to_builtins(line))) + b"\n"


def mark_of(line: bytes, offset: int) -> Mark:
    """What the ledger knows of a line (without its newline) that starts at ``offset``.

    Raises one of ``recovery.NO_RECORD`` where it is no whole record.
    """
    return _mark(_DECODER.decode(line), offset, len(line) + 1)


def marks_of(block: bytes, offset: int) -> list[Mark]:
    r"""As ``mark_of`` for many lines at once, each ended by ``\n``; faster. Raises the same where any is no record.

    The decoder minds neither blank lines nor records joined on one. But inside a record no ``{`` can follow a ``}``:
    where every line begins with the one and ends with the other, and there are as many records, each line is one.
    """
    records = _DECODER.decode_lines(block)
    *lines, rest = block.split(b"\n")
    if rest or len(lines) != len(records):
        raise msgspec.DecodeError("an empty line, a record over several lines, or several on one")
    marks: list[Mark] = []
    for known, line in zip(records, lines, strict=True):
        if not (line.startswith(b"{") and line.endswith(b"}")):
            raise msgspec.DecodeError("a line that is no record by itself")
        size_bytes = len(line) + 1
        marks.append(_mark(known, offset, size_bytes))
        offset += size_bytes
    return marks


class _KnownMedia(msgspec.Struct, gc=False):
    sha256: str | None = None


class _KnownError(msgspec.Struct, gc=False):
    stage: str
    kind: str
    retryable: bool


class _Known(msgspec.Struct, gc=False):
    """The fields of a line that decide about its item; the others are only looked over."""

    key: str
    status: Status
    backend: str
    fingerprint: str | None = None
    media: list[_KnownMedia] = []
    error: _KnownError | None = None
    ambiguous_runs: int = 0


_DECODER = msgspec.json.Decoder(_Known)


def _mark(known: _Known, offset: int, size_bytes: int) -> Mark:
    error = known.error
    return Mark(
        key=known.key,
        status=known.status,
        fingerprint=known.fingerprint,
        kind=error.kind if error else None,
        retryable=error.retryable if error else False,
        emulated=known.backend == EMULATOR,
        offset=offset,
        size_bytes=size_bytes,
        ambiguous_runs=known.ambiguous_runs,
        media_sha256=_media_digest(known.media),
        wrong_row=error is not None and error.stage == "manifest" and _WRONG_ROW_KEY.fullmatch(known.key) is not None,
    )


def _weigh(outcome: Outcome) -> tuple[int, Failure | None]:
    """How many runs have now lost the item to ambiguous faults, and its failure: permanent once they are too many."""
    failure = outcome.failure
    if failure is None or not failure.retryable:
        return 0, failure
    before = outcome.subject.ambiguous_runs if isinstance(outcome.subject, Item) else 0
    runs = before + outcome.ambiguous
    if runs >= AMBIGUOUS_RUNS_ALLOWED:
        failure = msgspec.structs.replace(failure, retryable=False)
    return runs, failure


def _media_records(outcome: Outcome) -> tuple[MediaRecord, ...]:
    subject = outcome.subject
    how: Sequence[str | None] = ["files" if part.file else "inline" for part in outcome.parts]
    known = [
        MediaRecord(path=m.path, mime_type=m.mime_type, size_bytes=m.size_bytes, sha256=m.sha256, via=via)
        for m, via in zip(subject.media, how or [None] * len(subject.media), strict=True)
    ]
    unknown = subject.paths if isinstance(subject, Rejected) else ()
    return (*known, *(MediaRecord(path=path) for path in unknown))


def _media_digest(media: Sequence[_KnownMedia]) -> str | None:
    """As ``manifest.fingerprint.media_sha256`` has it; a million lines are read with one medium each."""
    if len(media) == 1:
        return media[0].sha256
    try:
        hashes = "\n".join([medium.sha256 for medium in media])  # type: ignore[misc]  # a None is what is caught
    except TypeError:
        return None
    return sha256(hashes.encode()).hexdigest()


def _without_surrogates(value: Json) -> Json:
    """``value`` with every lone surrogate, which UTF-8 has no bytes for, replaced by U+FFFD."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list | tuple):
        return [_without_surrogates(element) for element in value]
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(element) for name, element in value.items()}
    return value
