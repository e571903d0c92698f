"""An item that goes round once more carries along what it has used up."""

from collections.abc import Iterable

import pytest

from pipeline.clock import ManualClock
from pipeline.engine.worker import SideDoor
from pipeline.errors import Again, Failure, ItemError, TryAgain
from pipeline.events import Observers
from pipeline.ledger.memory import MemoryLedger
from pipeline.records import Content, Outcome, RemoteFile
from tests.support.builders import NOW, item, ready, remote

GONE = Failure(stage="generation", kind="file_gone", message="gone", retryable=True)


class Storage:
    """One that takes note of nothing."""

    def release(self, contents: set[Content]) -> None: ...

    async def stored(self, content: Content, file: RemoteFile) -> None: ...

    async def lost(self, names: Iterable[str]) -> None: ...

    async def replace(self, file: RemoteFile) -> None: ...


class Outcomes:
    """Where failed items go."""

    def __init__(self) -> None:
        self.sent: list[Outcome] = []

    async def send(self, item: Outcome) -> None:
        self.sent.append(item)


@pytest.mark.parametrize("ambiguous", [False, True])
async def test_attempts_and_doubts_are_carried_along(ambiguous: bool) -> None:
    """They stand in the line with which the item ends."""
    ledger, outcomes = MemoryLedger(), Outcomes()
    door = SideDoor(outcomes=outcomes, ledger=ledger, storage=Storage(), clock=ManualClock(NOW), observer=Observers())
    await door.again(ready(item("a"), remote()), TryAgain(Again.FILE_GONE, GONE, attempts=2, ambiguous=ambiguous))
    assert not outcomes.sent
    [again] = [one async for one in ledger.requeued()]
    await door.failed(ready(again, remote()), ItemError(GONE, attempts=1))
    [outcome] = outcomes.sent
    assert (outcome.attempts, outcome.ambiguous) == (3, ambiguous)


async def test_an_item_goes_round_once_for_a_reason() -> None:
    """The second time it fails."""
    ledger, outcomes = MemoryLedger(), Outcomes()
    door = SideDoor(outcomes=outcomes, ledger=ledger, storage=Storage(), clock=ManualClock(NOW), observer=Observers())
    await door.again(ready(item("a", again=("file_gone",)), remote()), TryAgain(Again.FILE_GONE, GONE))
    assert [one async for one in ledger.requeued()] == []
    assert [outcome.failure for outcome in outcomes.sent] == [GONE]
