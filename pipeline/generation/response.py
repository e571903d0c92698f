"""Judges, without I/O, what the model answered: accept it, ask again, or end the item."""

from collections.abc import Mapping
from typing import Final

import msgspec

from pipeline.errors import Failure
from pipeline.json_schema import violation
from pipeline.nesting import DEPTH, is_deep
from pipeline.plain_text import one_line
from pipeline.records import Answer, Item, Json, Status, Usage

ASK_AGAIN: Final[dict[str, int]] = {
    "empty": 2,
    "recitation": 1,
    "language": 1,
    "other": 1,
    "image_recitation": 1,
    "image_other": 1,
    "finish_reason_unspecified": 1,
    "malformed_answer": 1,
    "invalid_output": 1,
}
"""How often the same question may be asked again after an answer of this kind; others never."""

BLOCKING: Final = frozenset(
    {
        "SAFETY",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "MODEL_ARMOR",
        "ESCALATION",
        "RECITATION",
        "LANGUAGE",
        "OTHER",
        "FINISH_REASON_UNSPECIFIED",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "IMAGE_OTHER",
    }
)
"""Finish reasons by which the model or a filter refuses (api/generate-content#FinishReason)."""

MALFORMED: Final = frozenset(
    {
        "MALFORMED_RESPONSE",
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "NO_IMAGE",
    }
)
"""Finish reasons by which the model produced something unusable."""

_KIND_CHARACTERS: Final = 64
_RATING_LEVELS: Final = 4
_TOKENS_BELIEVED: Final = 2**40

ACCOUNT_LIMITED: Final = "PUP_LIMITED_DISABLED"
"""The account is limited: every further call would end the same way."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """``failure`` is None exactly where ``status`` is SUCCEEDED; ``stop`` ends the run with its sentence."""

    status: Status
    answer: Answer
    failure: Failure | None = None
    stop: str | None = None

    @property
    def kind(self) -> str:
        """``error.kind``, or the empty string."""
        return self.failure.kind if self.failure else ""


def judge(body: Mapping[str, Json], item: Item) -> Judgement:
    """Judge the decoded body of a 200 answer. Never raises, whatever the body holds."""
    candidate = _first(body.get("candidates"))
    answer = _answer(body, candidate)
    feedback = _mapping(body.get("promptFeedback"))
    if candidate is None and feedback.get("blockReason"):
        reason = str(feedback["blockReason"])
        ratings = _ratings(feedback.get("safetyRatings"))
        answer = msgspec.structs.replace(answer, safety_ratings=ratings)
        return _blocked(answer, reason, "the prompt was blocked")
    reason = answer.finish_reason or ""
    if reason == ACCOUNT_LIMITED:
        stop = f"the service says {reason}: this account is limited; look at the project in AI Studio"
        return Judgement(status=Status.FAILED, answer=answer, failure=_failure("unknown_finish", stop), stop=stop)
    if reason in BLOCKING:
        return _blocked(answer, reason, str(_mapping(candidate).get("finishMessage") or "the answer was blocked"))
    if reason in MALFORMED:
        return _failed(answer, "malformed_answer", f"the model ended with {reason}")
    if reason == "MAX_TOKENS":
        return _failed(
            answer, "truncated", "the answer was cut at maxOutputTokens (thinking counts); raise it and run again"
        )
    if reason not in ("STOP", ""):
        return _failed(
            answer, "unknown_finish", f"the model ended with {one_line(reason)}, which this version doesn't know"
        )
    if not answer.text or not answer.text.strip():
        return _failed(answer, "empty", "the model answered without any text")
    return _with_data(answer, item)


def _with_data(answer: Answer, item: Item) -> Judgement:
    if item.schema is None and not _asks_for_json(item.generation):
        return Judgement(status=Status.SUCCEEDED, answer=answer)
    try:
        data = msgspec.json.decode(answer.text or "")
    except (ValueError, RecursionError) as error:
        return _failed(answer, "invalid_output", f"the answer is not JSON: {one_line(str(error))}")
    if is_deep(data):
        return _failed(answer, "invalid_output", f"the answer's JSON is nested deeper than {DEPTH} levels")
    if item.schema is not None and (problem := violation(data, item.schema)):
        return _failed(answer, "invalid_output", f"the answer violates the schema: {problem}")
    return Judgement(status=Status.SUCCEEDED, answer=msgspec.structs.replace(answer, data=data))


def usage_of(body: Mapping[str, Json]) -> Usage:
    """``usageMetadata`` as Usage; absent or absurd numbers count 0."""
    metadata = _mapping(body.get("usageMetadata"))

    def count(name: str) -> int:
        value = metadata.get(name)
        return value if isinstance(value, int) and 0 <= value < _TOKENS_BELIEVED else 0

    return Usage(
        prompt_tokens=count("promptTokenCount"),
        output_tokens=count("candidatesTokenCount"),
        thoughts_tokens=count("thoughtsTokenCount"),
        cached_tokens=count("cachedContentTokenCount"),
        total_tokens=count("totalTokenCount"),
    )


def _answer(body: Mapping[str, Json], candidate: Mapping[str, Json] | None) -> Answer:
    candidate = candidate or {}
    return Answer(
        text=_text(candidate),
        model_version=_string(body.get("modelVersion")),
        response_id=_string(body.get("responseId")),
        finish_reason=_string(candidate.get("finishReason")),
        safety_ratings=_ratings(candidate.get("safetyRatings")),
        usage=usage_of(body),
    )


def _text(candidate: Mapping[str, Json]) -> str | None:
    """The text parts joined; thoughts (``thought: true``) are not part of the answer."""
    parts = _mapping(candidate.get("content")).get("parts")
    texts = [
        part["text"]
        for part in (parts if isinstance(parts, list) else ())
        if isinstance(part, dict) and isinstance(part.get("text"), str) and not part.get("thought")
    ]
    return "".join(texts) if texts else None


def _blocked(answer: Answer, reason: str, message: str) -> Judgement:
    failure = _failure(one_line(reason.lower(), _KIND_CHARACTERS), one_line(message))
    return Judgement(status=Status.BLOCKED, answer=answer, failure=failure)


def _failed(answer: Answer, kind: str, message: str) -> Judgement:
    return Judgement(status=Status.FAILED, answer=answer, failure=_failure(kind, message))


def _failure(kind: str, message: str) -> Failure:
    """Never retryable: asking once more would be paid once more."""
    return Failure(stage="generation", kind=kind, message=message, http_status=200)


def _asks_for_json(config: Mapping[str, Json]) -> bool:
    return (config.get("responseMimeType") or config.get("response_mime_type")) == "application/json"


def _first(value: Json) -> Mapping[str, Json] | None:
    return value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else None


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _string(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def _ratings(value: Json) -> tuple[dict[str, Json], ...]:
    """As the service gives them, but for what is no rating."""
    listed = value if isinstance(value, list) else ()
    return tuple(rating for rating in listed if isinstance(rating, dict) and not is_deep(rating, _RATING_LEVELS))
