"""Memory object streams without a turn of the event loop where there is room, or something to take, already.

anyio's ``send`` and ``receive`` yield each time, so that a busy loop stays fair; workers that await a call for each
item are fair as they are, and at thousands of items a second the turns cost more than the work.
"""

from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from anyio import CancelScope, EndOfStream, WouldBlock
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)


class Sink(Protocol[Item_contra]):
    """Where things are put: a stream, or a fork of streams."""

    async def send(self, item: Item_contra) -> None:
        """Wait for room, and put ``item`` there."""
        ...


class OwnedSink(Sink[Item_contra], Protocol[Item_contra]):
    """A sink that is closed by leaving its context."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Putting(Generic[Item]):
    """An ``OwnedSink`` that puts into ``stream``, and owns it."""

    def __init__(self, stream: MemoryObjectSendStream[Item]) -> None:
        self._stream = stream

    async def send(self, item: Item) -> None:
        """Put ``item`` there; waits only where there is no room."""
        try:
            self._stream.send_nowait(item)
        except WouldBlock:
            await self._stream.send(item)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


class Keeping(Putting[Item]):
    """Puts what has been paid for: also when cancelled meanwhile. Whoever receives it must outlive who sends it."""

    async def send(self, item: Item) -> None:
        """Put ``item`` there, come what may."""
        try:
            self._stream.send_nowait(item)
        except WouldBlock:
            with CancelScope(shield=True):
                await self._stream.send(item)


class Taking(Generic[Item]):
    """Iterates over what comes out of ``stream`` until it ends; waits only where nothing lies there."""

    def __init__(self, stream: MemoryObjectReceiveStream[Item]) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        try:
            return self._stream.receive_nowait()
        except WouldBlock:
            pass
        except EndOfStream:
            raise StopAsyncIteration from None
        try:
            return await self._stream.receive()
        except EndOfStream:
            raise StopAsyncIteration from None
