"""Asking again: what it costs is told, and a drain that cuts it short leaves the rest to the next run."""

from typing import Any, cast

from pipeline.clock import ManualClock
from pipeline.drain import Drain
from pipeline.errors import ExitCode, Failure, ItemError
from pipeline.events import Observers
from pipeline.gemini.api import GenerateRequest, GenerateResponse, ModelsApi
from pipeline.generation.body_budget import BodyBudget
from pipeline.generation.stage import GenerationRoom
from pipeline.limits import Limits
from pipeline.records import Item, Status
from tests.support.builders import NOW, item, ready, remote

TOKENS = {"promptTokenCount": 10, "candidatesTokenCount": 1, "totalTokenCount": 11}
UNAVAILABLE = Failure(stage="generation", kind="unavailable", message="503", retryable=True)


def empty() -> GenerateResponse:
    body: dict[str, Any] = {"candidates": [{"finishReason": "STOP"}], "usageMetadata": TOKENS}
    return GenerateResponse(body=body, attempts=1, ambiguous=False)


class Service:
    """Answers in turn."""

    def __init__(self, *answers: GenerateResponse | Exception, drain: Drain | None = None) -> None:
        self._answers = list(answers)
        self._drain = drain

    async def generate(self, _request: GenerateRequest) -> GenerateResponse:
        answer = self._answers.pop(0)
        if self._drain:
            self._drain.begin(ExitCode.SIGTERM, "stopped")
        if isinstance(answer, Exception):
            raise answer
        return answer


def room(service: Service, drain: Drain) -> GenerationRoom:
    return GenerationRoom(
        models=cast("ModelsApi", service),
        bodies=BodyBudget(1000),
        estimate_tokens=lambda _item: 1,
        limits=Limits(),
        drain=drain,
        clock=ManualClock(NOW),
        observer=Observers(),
    )


def one() -> Item:
    return item("a", attempts_before=2)


async def test_tokens_of_an_answer_are_told_though_the_next_call_fails() -> None:
    """They were paid for; the failure is the last call's."""
    service = Service(empty(), ItemError(UNAVAILABLE, attempts=6, ambiguous=True))
    outcome = await room(service, Drain()).handle(ready(one(), remote()))
    assert (outcome.status, outcome.failure) == (Status.FAILED, UNAVAILABLE)
    assert (outcome.attempts, outcome.ambiguous) == (9, True)
    assert outcome.answer
    assert outcome.answer.usage.total_tokens == 11
    assert len(outcome.parts) == 1


async def test_a_doubt_of_an_earlier_pass_stays() -> None:
    """Nobody knows of that call whether it was billed, however the last one ends."""
    earlier = item("a", ambiguous_before=True)
    outcome = await room(Service(empty(), empty(), empty()), Drain()).handle(ready(earlier, remote()))
    assert outcome.ambiguous


async def test_what_a_drain_keeps_from_being_asked_again_is_asked_by_the_next_run() -> None:
    """Without the drain it would have been asked again now."""
    drain = Drain()
    outcome = await room(Service(empty(), drain=drain), drain).handle(ready(one(), remote()))
    assert outcome.failure
    assert (outcome.failure.kind, outcome.failure.retryable) == ("empty", True)


async def test_what_was_asked_often_enough_is_permanent() -> None:
    """Also where the last answer comes in the drain."""
    outcome = await room(Service(empty(), empty(), empty()), Drain()).handle(ready(one(), remote()))
    assert outcome.failure
    assert (outcome.failure.kind, outcome.failure.retryable) == ("empty", False)
    assert outcome.answer
    assert outcome.answer.usage.total_tokens == 33
