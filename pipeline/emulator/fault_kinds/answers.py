"""Faults inside answers of status 200, all of them paid; changes when an answer can be useless in another way.

Finish and block reasons: ai.google.dev/api/generate-content. Empty candidates: BerriAI/litellm#24442.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from pipeline.emulator.fault_kinds.registry import Strike, kind
from pipeline.emulator.plan import Fault
from pipeline.emulator.reply import Reply

GENERATE = frozenset({"generate"})

Payload = dict[str, Any]


def _spoiler(name: str) -> Callable[[Callable[[Payload, Fault], None]], None]:
    """Register a kind that changes the answer in place."""

    def register(spoil: Callable[[Payload, Fault], None]) -> None:
        async def act(strike: Strike) -> Reply:
            reply = await strike.work()
            spoil(reply.payload, strike.fault)
            return reply

        kind(name, GENERATE)(act)

    return register


def _candidate(payload: Payload) -> Payload:
    candidate: Payload = payload["candidates"][0]
    return candidate


def _text(payload: Payload) -> str:
    return "".join(part["text"] for part in _candidate(payload)["content"].get("parts", []))


def _set_text(payload: Payload, text: str) -> None:
    parts = {"parts": [{"text": text}]} if text else {}
    _candidate(payload)["content"] = {**parts, "role": "model"}


def _uncount_output(payload: Payload) -> None:
    usage = payload["usageMetadata"]
    usage.pop("candidatesTokenCount", None)
    usage["totalTokenCount"] = usage["promptTokenCount"] + usage.get("thoughtsTokenCount", 0)


@_spoiler("block_prompt")
def _block_prompt(payload: Payload, fault: Fault) -> None:
    del payload["candidates"]
    payload["promptFeedback"] = {"blockReason": fault.reason or "PROHIBITED_CONTENT"}
    _uncount_output(payload)


@_spoiler("finish")
def _finish(payload: Payload, fault: Fault) -> None:
    _candidate(payload)["finishReason"] = fault.reason or "SAFETY"
    if not fault.text:
        _set_text(payload, "")
        _uncount_output(payload)


@_spoiler("no_parts")
def _no_parts(payload: Payload, fault: Fault) -> None:  # noqa: ARG001 - a spoiler's signature
    _set_text(payload, "")
    _uncount_output(payload)


@_spoiler("no_candidates")
def _no_candidates(payload: Payload, fault: Fault) -> None:  # noqa: ARG001 - a spoiler's signature
    del payload["candidates"]
    _uncount_output(payload)


@_spoiler("two_candidates")
def _two_candidates(payload: Payload, fault: Fault) -> None:  # noqa: ARG001 - a spoiler's signature
    payload["candidates"].append({**_candidate(payload), "index": 1})


@_spoiler("only_thoughts")
def _only_thoughts(payload: Payload, fault: Fault) -> None:  # noqa: ARG001 - a spoiler's signature
    thought = {"text": "[emulated] a thought", "thought": True}
    _candidate(payload)["content"] = {"parts": [thought], "role": "model"}
    _uncount_output(payload)


@_spoiler("max_tokens")
def _max_tokens(payload: Payload, fault: Fault) -> None:
    _candidate(payload)["finishReason"] = "MAX_TOKENS"
    text = _text(payload)
    _set_text(payload, text[: len(text) // 2] if fault.text else "")


@_spoiler("unknown_finish")
def _unknown_finish(payload: Payload, fault: Fault) -> None:
    _candidate(payload)["finishReason"] = fault.reason or "REASON_OF_TOMORROW"


@_spoiler("invalid_json_output")
def _invalid_json_output(payload: Payload, fault: Fault) -> None:  # noqa: ARG001 - a spoiler's signature
    """JSON of another type than the schema's."""
    try:
        is_object = isinstance(msgspec.json.decode(_text(payload)), dict)
    except msgspec.DecodeError:
        is_object = False
    _set_text(payload, '["[emulated] not what the schema asks for"]' if is_object else '{"emulated": true}')


@_spoiler("not_json_output")
def _not_json_output(payload: Payload, fault: Fault) -> None:  # noqa: ARG001 - a spoiler's signature
    _set_text(payload, '```json\n{"emulated": "cut of')
