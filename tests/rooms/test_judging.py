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
    """The answer is kept."""
    with anyio.fail_after(60):
        judgement = await Judging(pattern_seconds=1.0).judge(answered("a" * 60 + "!"), item(schema=labelled(BOMB)))

    assert judgement.status is Status.FAILED
    assert judgement.failure
    assert (judgement.kind, judgement.failure.retryable) == ("invalid_output", False)
    assert "could not be applied within 1 s" in judgement.failure.message
    assert judgement.answer.text


async def test_a_run_that_is_ended_waits_for_no_pattern_and_loses_no_answer() -> None:
    """However many wait for a process: each answer goes on its way at once, to be asked for again by the next run."""
    judging = Judging(pattern_seconds=60.0)
    judgements = []

    async def judge() -> None:
        judgements.append(await judging.judge(answered("a" * 60 + "!"), item(schema=labelled(BOMB))))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(judge)
            await anyio.sleep(0.5)
            tasks.cancel_scope.cancel()

    assert len(judgements) == 8
    assert all(each.answer.text and each.failure and each.failure.retryable for each in judgements)


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
