"""What every worker does: take, handle, pass on; and where an item goes that can't be handled."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TypeVar

import msgspec

from pipeline.clock import Clock
from pipeline.drain import Drain
from pipeline.errors import Again, Draining, ItemError, StopRun, TryAgain
from pipeline.events import ItemState, Observer, Retrying
from pipeline.ledger.api import Ledger
from pipeline.records import Content, FileState, Item, Outcome, Placed, Ready, RemoteFile, Status, Uploaded
from pipeline.streams import OwnedSink, Receiver, Sink

PASSES = {Again.NOT_ACTIVE: 3}
"""How often an item may go round again for a reason; once for all others."""

Travelling = Item | Uploaded | Ready
STATES: Final[dict[type[Travelling], str]] = {Item: "uploading", Uploaded: "activating", Ready: "generating"}
U = TypeVar("U")
Incoming = TypeVar("Incoming", bound=Travelling)


class Storage(Protocol):
    """The project's file storage."""

    def release(self, contents: set[Content]) -> None:
        """One item needs ``contents`` no more."""
        ...

    async def stored(self, content: Content, file: RemoteFile) -> None:
        """``content`` lies there as ``file``."""
        ...

    async def lost(self, names: Iterable[str]) -> None:
        """These files are gone, or useless."""
        ...

    async def replace(self, file: RemoteFile) -> None:
        """An item that needs ``file`` wants it uploaded afresh."""
        ...


class SideDoor:
    """Where items go that can't go on: to the results, or round again in the next pass."""

    def __init__(
        self,
        *,
        outcomes: Sink[Outcome],
        ledger: Ledger,
        storage: Storage,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._outcomes = outcomes
        self._observer = observer
        self._ledger = ledger
        self._storage = storage
        self._clock = clock

    def entered(self, travelling: Travelling) -> None:
        """The item is in a room now."""
        self._observer.notify(ItemState(key=item_of(travelling).key, state=STATES[type(travelling)]))

    async def failed(self, travelling: Travelling, error: ItemError | TryAgain) -> None:
        """The item ends here."""
        item, parts = item_of(travelling), parts_of(travelling)
        now = self._clock.now()
        outcome = Outcome(
            subject=item,
            status=Status.FAILED,
            attempts=item.attempts_before + error.attempts,
            ambiguous=error.ambiguous or item.ambiguous_before,
            failure=error.failure,
            parts=parts,
            started_at=now if isinstance(travelling, Item) else travelling.started_at,
            finished_at=now,
        )
        await self._outcomes.send(outcome)

    async def again(self, travelling: Travelling, error: TryAgain) -> None:
        """The item goes round once more, or ends here when it has done so before."""
        await self._doubt_files(travelling, error)
        item = item_of(travelling)
        if item.again.count(error.reason) >= PASSES.get(error.reason, 1):
            await self.failed(travelling, error)
            return
        attempts = item.attempts_before + error.attempts
        item = msgspec.structs.replace(
            item,
            again=(*item.again, error.reason),
            attempts_before=attempts,
            ambiguous_before=error.ambiguous or item.ambiguous_before,
        )
        await self._ledger.requeue(item)
        self._observer.notify(
            Retrying(
                route=error.failure.stage,
                subject=item.key,
                cause=error.failure.kind,
                wait_seconds=0.0,
                message=error.failure.message,
            )
        )
        self._storage.release({part.media.content for part in parts_of(travelling) if part.file})

    async def _doubt_files(self, travelling: Travelling, error: TryAgain) -> None:
        """The files that the error names, or all of the item's where it names none, are waited for or uploaded anew."""
        placed = {part.file.name: part for part in parts_of(travelling) if part.file}
        names = error.file_names or tuple(placed)
        if error.reason not in (Again.NOT_ACTIVE, Again.FRESH_UPLOAD):
            await self._storage.lost(names)
            return
        for name in names:
            if not (part := placed.get(name)) or not part.file:
                continue
            if error.reason is Again.FRESH_UPLOAD:
                await self._storage.replace(part.file)
            else:
                doubted = msgspec.structs.replace(part.file, state=FileState.PROCESSING)
                await self._storage.stored(part.media.content, doubted)


async def work(
    receive: Receiver[Incoming],
    handle: Callable[[Incoming], Awaitable[U]],
    send: OwnedSink[U],
    *,
    door: SideDoor,
    drain: Drain,
) -> None:
    """Handle what comes until the stream ends. Owns its ends on both sides."""
    async with receive, send:
        async for travelling in receive:
            door.entered(travelling)
            try:
                handled = await handle(travelling)
            except ItemError as error:
                await door.failed(travelling, error)
            except TryAgain as error:
                with stopping(drain):  # where the ledger can't keep the item
                    await door.again(travelling, error)
            except StopRun as stop:
                drain.begin(stop.exit_code, str(stop))
            except Draining:
                pass  # the item is left for the next run
            else:
                await send.send(handled)


@contextmanager
def stopping(drain: Drain) -> Iterator[None]:
    """``StopRun`` of the body begins the drain, and cuts off no call that is out."""
    try:
        yield
    except StopRun as stop:
        drain.begin(stop.exit_code, str(stop))


def item_of(travelling: Travelling) -> Item:
    """The item inside."""
    return travelling if isinstance(travelling, Item) else travelling.item


def parts_of(travelling: Travelling) -> tuple[Placed, ...]:
    """How its media travel, where that is decided."""
    return () if isinstance(travelling, Item) else travelling.parts
