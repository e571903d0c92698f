"""What an answer means."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.generation.response import judge, usage_of
from pipeline.records import Status, Usage
from tests.support.builders import item

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def answer(reason: str | None = "STOP", *parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A body with one candidate."""
    candidate: dict[str, Any] = {"content": {"role": "model"}}
    if parts:
        candidate["content"]["parts"] = list(parts)
    if reason:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], **more}


CASES = [
    (answer("STOP", {"text": "A cat."}), Status.SUCCEEDED, ""),
    (answer(None, {"text": "A cat."}), Status.SUCCEEDED, ""),
    (answer("STOP"), Status.FAILED, "empty"),
    (answer("STOP", {"text": "  \n"}), Status.FAILED, "empty"),
    (answer("STOP", {"text": "hm", "thought": True}), Status.FAILED, "empty"),
    (answer("MAX_TOKENS", {"text": "A c"}), Status.FAILED, "truncated"),
    (answer("MAX_TOKENS"), Status.FAILED, "truncated"),
    (answer("SAFETY"), Status.BLOCKED, "safety"),
    (answer("PROHIBITED_CONTENT"), Status.BLOCKED, "prohibited_content"),
    (answer("RECITATION"), Status.BLOCKED, "recitation"),
    (answer("IMAGE_SAFETY"), Status.BLOCKED, "image_safety"),
    (answer("OTHER"), Status.BLOCKED, "other"),
    (answer("MALFORMED_RESPONSE"), Status.FAILED, "malformed_answer"),
    (answer("TOO_MANY_TOOL_CALLS"), Status.FAILED, "malformed_answer"),
    (answer("BRAND_NEW", {"text": "A cat."}), Status.FAILED, "unknown_finish"),
    ({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, Status.BLOCKED, "prohibited_content"),
    ({}, Status.FAILED, "empty"),
    ({"candidates": []}, Status.FAILED, "empty"),
    ({"candidates": [None]}, Status.FAILED, "empty"),
]


@pytest.mark.parametrize(("body", "status", "kind"), CASES)
def test_judge(body: dict[str, Any], status: Status, kind: str) -> None:
    """Each finish reason and each odd shape has its status and kind."""
    judgement = judge(body, item())
    assert (judgement.status, judgement.kind) == (status, kind)
    assert (judgement.failure is None) == (status is Status.SUCCEEDED)


def test_a_truncated_answer_keeps_its_text() -> None:
    """What was paid for is kept, though it is no success."""
    assert judge(answer("MAX_TOKENS", {"text": "A c"}), item()).answer.text == "A c"


def test_thoughts_are_not_part_of_the_text() -> None:
    """Text parts are joined; thoughts are left out."""
    body = answer("STOP", {"text": "hm", "thought": True}, {"text": "A "}, {"text": "cat."})
    assert judge(body, item()).answer.text == "A cat."


def test_a_limited_account_stops_the_run() -> None:
    """PUP_LIMITED_DISABLED would end every further call the same way."""
    assert judge(answer("PUP_LIMITED_DISABLED"), item()).stop


@pytest.mark.parametrize(
    ("text", "kind", "data"),
    [
        ('{"label": "cat"}', "", {"label": "cat"}),
        ('{"label": 3}', "invalid_output", None),
        ('{"label": "cat"', "invalid_output", None),
        ("A cat.", "invalid_output", None),
    ],
)
def test_a_schema_is_checked(text: str, kind: str, data: Any) -> None:
    """An answer under a schema must parse and conform; its raw text is kept either way."""
    schema = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
    judgement = judge(answer("STOP", {"text": text}), item(schema=schema))
    assert (judgement.kind, judgement.answer.data, judgement.answer.text) == (kind, data, text)


def test_json_without_a_schema_is_parsed_too() -> None:
    """``responseMimeType: application/json`` alone asks for JSON."""
    one = item(generation={"responseMimeType": "application/json"})
    assert judge(answer("STOP", {"text": "[1]"}), one).answer.data == [1]


def test_usage_counts_what_is_there() -> None:
    """Absent numbers are 0 and rubbish is not counted."""
    metadata = {"promptTokenCount": 7, "candidatesTokenCount": "x", "thoughtsTokenCount": -1, "totalTokenCount": 9}
    assert usage_of({"usageMetadata": metadata}) == Usage(prompt_tokens=7, total_tokens=9)


@given(st.dictionaries(st.sampled_from(["candidates", "promptFeedback", "usageMetadata", "modelVersion"]), JSON))
def test_no_body_makes_it_raise(body: dict[str, Any]) -> None:
    """Whatever JSON comes back, there is a judgement."""
    assert judge(body, item()).status in Status
