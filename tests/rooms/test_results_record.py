"""From outcome to line to mark: every field, every rule, and bytes that are always one line."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Failure
from pipeline.manifest.fingerprint import media_sha256
from pipeline.records import (
    Answer,
    FileIdentity,
    FileState,
    Item,
    Media,
    Outcome,
    Placed,
    Rejected,
    RemoteFile,
    Status,
    Usage,
)
from pipeline.results.record import encode, line_of, mark_of

NOW = datetime(2026, 11, 22, 2, 30, 0, 123456, tzinfo=UTC)
IDENTITY = FileIdentity(size_bytes=1, mtime_ns=2, ctime_ns=3, inode=4)
FIELDS = [
    "key", "status", "text", "data", "media", "model", "model_version", "response_id", "finish_reason",
    "safety_ratings", "usage", "cost_usd", "attempts", "template", "prompt_sha256", "fingerprint", "backend", "part",
    "line", "started_at", "finished_at", "error",
]  # fmt: skip


def media(path: str) -> Media:
    sha = hashlib.sha256(path.encode()).hexdigest()
    return Media(path=path, location="/" + path, mime_type="image/png", size_bytes=9, sha256=sha, identity=IDENTITY)


def item(key: str = "a", **fields: Any) -> Item:
    given: dict[str, Any] = {"media": (media("x.png"), media("y.png")), "prompt": "p", "prompt_sha256": "ps", **fields}
    return Item(key=key, position=0, line=42, model="m", fingerprint="v1:f", **given)


def outcome(subject: Item | Rejected, status: Status = Status.SUCCEEDED, **fields: Any) -> Outcome:
    return Outcome(subject=subject, status=status, started_at=NOW, finished_at=NOW, **fields)


def failed(*, retryable: bool = True, stage: Any = "generation", kind: str = "timeout") -> Failure:
    return Failure(stage=stage, kind=kind, message="no answer", retryable=retryable)


def test_a_line_has_every_field_with_the_key_first() -> None:
    """The contract's fields are all there, in its order, nulls too."""
    decoded = json.loads(encode(line_of(outcome(item()), "gemini")))
    assert list(decoded)[: len(FIELDS)] == FIELDS
    assert decoded["started_at"] == "2026-11-22T02:30:00.123Z"
    assert (decoded["cost_usd"], decoded["error"], decoded["line"]) == (None, None, 42)


def test_an_answer_and_how_its_media_travelled() -> None:
    """Text, usage and the way of each medium stand in the line."""
    file = RemoteFile(name="files/a", uri="u", mime_type="image/png", size_bytes=9, state=FileState.ACTIVE)
    subject = item()
    parts = (Placed(media=subject.media[0], file=file), Placed(media=subject.media[1]))
    answer = Answer(text="t", data={"a": [1]}, usage=Usage(prompt_tokens=3, total_tokens=3))
    decoded = json.loads(encode(line_of(outcome(subject, answer=answer, parts=parts, attempts=2), "host.example")))
    assert [(m["path"], m["via"]) for m in decoded["media"]] == [("x.png", "files"), ("y.png", "inline")]
    assert (decoded["text"], decoded["data"], decoded["attempts"]) == ("t", {"a": [1]}, 2)
    assert decoded["usage"]["prompt_tokens"] == 3
    assert decoded["backend"] == "host.example"


def test_a_rejected_row_tells_what_is_known() -> None:
    """Media that could not be identified stand there by their path alone, and spoil the media digest."""
    failure = failed(retryable=False, stage="manifest", kind="missing_file")
    subject = Rejected(key="r", position=1, line=7, failure=failure, media=(media("x.png"),), paths=("gone.png",))
    data = encode(line_of(outcome(subject, Status.FAILED, failure=failure), "gemini"))
    decoded = json.loads(data)
    assert [(m["path"], m["sha256"] is None) for m in decoded["media"]] == [("x.png", False), ("gone.png", True)]
    assert decoded["error"]["kind"] == "missing_file"
    assert mark_of(data[:-1], 0).media_sha256 is None


@pytest.mark.parametrize(
    ("before", "ambiguous", "retryable", "runs", "stays_retryable"),
    [
        (0, False, True, 0, True),
        (0, True, True, 1, True),
        (1, True, True, 2, True),
        (2, True, True, 3, False),
        (2, False, True, 2, True),
        (2, True, False, 0, False),
    ],
)
def test_three_ambiguous_runs_make_a_failure_permanent(
    before: int, ambiguous: bool, retryable: bool, runs: int, stays_retryable: bool
) -> None:
    """Retryable failures count runs lost to ambiguous faults; the third is permanent."""
    failure = failed(retryable=retryable)
    line = line_of(outcome(item(ambiguous_runs=before), Status.FAILED, failure=failure, ambiguous=ambiguous), "gemini")
    assert line.error is not None
    assert (line.ambiguous_runs, line.error.retryable) == (runs, stays_retryable)


def test_success_forgets_ambiguous_runs() -> None:
    """An answer ends the count."""
    assert line_of(outcome(item(ambiguous_runs=2)), "gemini").ambiguous_runs == 0


def test_a_mark_says_what_the_line_says() -> None:
    """Every field of the mark comes from the line and its place."""
    data = encode(line_of(outcome(item("k"), Status.FAILED, failure=failed(), ambiguous=True), "emulator"))
    mark = mark_of(data[:-1], 100)
    joined = "\n".join(m.sha256 for m in item().media)
    assert (mark.key, mark.status, mark.fingerprint, mark.kind) == ("k", Status.FAILED, "v1:f", "timeout")
    assert (mark.retryable, mark.emulated, mark.offset, mark.size_bytes) == (True, True, 100, len(data))
    assert (mark.ambiguous_runs, mark.media_sha256) == (1, hashlib.sha256(joined.encode()).hexdigest())


@pytest.mark.parametrize("names", [(), ("a.png",), ("a.png", "b.png"), ("b.png", "a.png")])
def test_the_media_digest_of_a_line_is_the_manifests(names: tuple[str, ...]) -> None:
    """Read back from a line, the digest is what the manifest room compares it with, also for one medium or none."""
    subject = msgspec.structs.replace(item(), media=tuple(media(name) for name in names))
    data = encode(line_of(outcome(subject), "gemini"))
    assert mark_of(data[:-1], 0).media_sha256 == media_sha256(subject.media)


@pytest.mark.parametrize(
    ("key", "stage", "is_wrong"),
    [
        ("line:3", "manifest", True),
        ("a\nb#line:3", "manifest", True),
        ("line:3", "generation", False),
        ("online:3", "manifest", False),
        ("line:x", "manifest", False),
        ("a", "manifest", False),
    ],
)
def test_wrong_rows_are_told_by_key_and_stage(key: str, stage: str, is_wrong: bool) -> None:
    """Only a manifest failure under a key that the program made up is a wrong row's line."""
    failure = failed(retryable=False, stage=stage, kind="bad_row")
    data = encode(line_of(outcome(item(key), Status.FAILED, failure=failure), "gemini"))
    assert mark_of(data[:-1], 0).wrong_row is is_wrong


ANY_TEXT = st.text(alphabet=st.characters(codec=None))
ANY_JSON = st.recursive(st.floats() | ANY_TEXT, lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner))


@given(ANY_TEXT, ANY_JSON)
def test_any_answer_is_one_readable_line(text: str, data: Any) -> None:
    """Whatever a model says (lone surrogates, NaN, line separators), the line is one line of strict JSON."""
    encoded = encode(line_of(outcome(item("k"), answer=Answer(text=text, data=data)), "gemini"))
    assert encoded.count(b"\n") == 1
    assert encoded.endswith(b"\n")
    decoded = json.loads(encoded.decode("utf-8"), parse_constant=pytest.fail)
    assert decoded["key"] == "k"
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert decoded["text"] == text
    assert mark_of(encoded[:-1], 0).key == "k"


@pytest.mark.parametrize(
    "broken", [b"", b"{}", b"[]", b'{"key": "a"', bytes(10), b'{"key":"a","status":"odd","backend":"x"}']
)
def test_what_is_no_record_is_refused(broken: bytes) -> None:
    """A fragment, zeros or JSON of another shape is never taken for a line."""
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        mark_of(broken, 0)
