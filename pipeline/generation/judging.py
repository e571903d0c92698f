"""Judges answers where they are judged: nearly always here, but where a schema has patterns in a process of its own.

Nothing can interrupt a regular expression, and one such as ``^(a+)+$`` may take years over thirty characters of an
answer. Schemas come with manifests, and answers from a model; neither may stop a run.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import anyio
import msgspec

from pipeline.errors import Failure
from pipeline.generation.response import Judgement, judge
from pipeline.json_schema import has_patterns
from pipeline.records import Item, Json, Status

PATTERN_SECONDS: Final = 10.0
"""For one answer, with the start of a process; then the process is killed."""

_PROCESSES: Final = 2


class Judging:
    """One per run."""

    def __init__(self, *, pattern_seconds: float = PATTERN_SECONDS) -> None:
        self._pattern_seconds = pattern_seconds
        self._turns = anyio.Semaphore(_PROCESSES)

    async def judge(self, body: Mapping[str, Json], item: Item) -> Judgement:
        """As the function of this name. A cancellation ends the wait, and not the item: its answer is paid."""
        if item.schema is None or not has_patterns(item.schema):
            return judge(body, item)
        from anyio import to_process

        try:
            async with self._turns:
                with suppress(anyio.BrokenWorkerProcess), anyio.move_on_after(self._pattern_seconds):
                    return await to_process.run_sync(judge, body, item, cancellable=True)
            message, retryable = f"could not be applied within {self._pattern_seconds:g} s; simplify them", False
        except anyio.get_cancelled_exc_class():  # comes again at the next wait, when the outcome is on its way
            message, retryable = "were not applied before the run was ended", True
        failure = Failure(
            stage="generation",
            kind="invalid_output",
            message=f"the schema's patterns {message}",
            retryable=retryable,
            http_status=200,
        )
        unchecked = judge(body, msgspec.structs.replace(item, schema=None))
        return Judgement(status=Status.FAILED, answer=unchecked.answer, failure=failure)
