"""Schemas with patterns are applied where they can't hold anybody up."""

import json

import anyio
import pytest

from pipeline.generation.judging import Judging
from pipeline.json_schema import has_patterns
from pipeline.records import Json, Status
from tests.support.builders import item

BOMB = "^(a+)+$"
"""Its time doubles with each character of an answer that almost matches."""


def answered(label: str) -> dict[str, Json]:
    parts: Json = [{"text": json.dumps({"label": label})}]
    return {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}


def labelled(pattern: str) -> dict[str, Json]:
    return {"type": "object", "properties": {"label": {"type": "string", "pattern": pattern}}}


@pytest.mark.parametrize(("label", "kind"), [("cat", ""), ("dog", "invalid_output")])
async def test_a_pattern_is_applied(label: str, kind: str) -> None:
    judgement = await Judging().judge(answered(label), item(schema=labelled("^c")))
    assert judgement.kind == kind
    assert judgement.answer.text == json.dumps({"label": label})


async def test_a_pattern_without_end_fails_its_item() -> None:
    """The answer is kept; it was paid, so no cancellation loses it."""
    judging = Judging(pattern_seconds=1.0)

    with anyio.fail_after(60), anyio.CancelScope() as scope:
        scope.cancel()
        judgement = await judging.judge(answered("a" * 60 + "!"), item(schema=labelled(BOMB)))

    assert judgement.status is Status.FAILED
    assert judgement.kind == "invalid_output"
    assert judgement.failure
    assert "could not be applied within 1 s" in judgement.failure.message
    assert judgement.answer.text


async def test_the_loop_turns_while_a_pattern_is_applied() -> None:
    judging = Judging(pattern_seconds=1.0)
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await anyio.sleep(0.05)
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(turn)
        await judging.judge(answered("a" * 60 + "!"), item(schema=labelled(BOMB)))
        tasks.cancel_scope.cancel()
    assert turns >= 5


@pytest.mark.parametrize(
    ("schema", "has"),
    [
        ({"type": "object", "required": ["label"]}, False),
        (labelled("^c"), True),
        ({"anyOf": [{"type": "null"}, {"items": {"patternProperties": {"^a": {}}}}]}, True),
    ],
)
def test_patterns_are_found_wherever_they_stand(schema: dict[str, Json], has: bool) -> None:
    assert has_patterns(schema) is has
