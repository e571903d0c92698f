"""Bounded streams between rooms, made for thousands of items a second.

anyio's memory object streams yield at each ``send`` and ``receive``, and wake a sender for each item that is taken
from a full one. Here nobody yields where there is room, or something to take: workers that await a call for each item
are fair as they are. And senders that found a stream full are woken when half of it is free, all at once, for to be
woken costs more than to put an item there.
"""

import asyncio
from collections import deque
from types import TracebackType
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

from anyio import BrokenResourceError, CancelScope, ClosedResourceError, WouldBlock

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


class Fill(NamedTuple):
    """How full a stream is, and who is at it."""

    items: int
    senders: int
    """Ends that are open."""
    senders_waiting: int
    receivers: int
    receivers_waiting: int


class Stream(Generic[Item]):
    """What lies between the ends, and who waits there; used through its ends only."""

    __slots__ = ("_receivers_waiting", "_senders_waiting", "capacity", "items", "receivers", "senders")

    def __init__(self, capacity: int) -> None:
        """At most ``capacity`` items lie there, of which there must be one."""
        self.capacity = capacity
        self.items: deque[Item] = deque()
        self.senders = self.receivers = 0
        self._senders_waiting: deque[asyncio.Future[None]] = deque()
        self._receivers_waiting: deque[asyncio.Future[None]] = deque()

    def ends(self) -> "tuple[Sender[Item], Receiver[Item]]":
        """The first two ends, each to be closed."""
        return Sender(self), Receiver(self)

    def fill(self) -> Fill:
        return Fill(
            len(self.items), self.senders, len(self._senders_waiting), self.receivers, len(self._receivers_waiting)
        )

    def put(self, item: Item) -> bool:
        """Put it there if there is room; whoever waits for it must look for himself, for others may be quicker."""
        if len(self.items) >= self.capacity:
            return False
        self.items.append(item)
        if self._receivers_waiting:
            _wake_one(self._receivers_waiting)
        return True

    def take(self) -> Item:
        """Take what was put there first. Raises ``IndexError`` where there is nothing."""
        item = self.items.popleft()
        if self._senders_waiting and len(self.items) <= self.capacity // 2:
            self.wake_senders()
        return item

    async def room(self) -> None:
        """Wait until there may be room."""
        await _wait(self._senders_waiting)

    async def something(self) -> None:
        """Wait until there may be something to take."""
        try:
            await _wait(self._receivers_waiting)
        except BaseException:
            if self.items:
                _wake_one(self._receivers_waiting)  # it may have been meant for who was cancelled just now
            raise

    def wake_senders(self) -> None:
        while self._senders_waiting:
            _wake_one(self._senders_waiting)

    def wake_receivers(self) -> None:
        while self._receivers_waiting:
            _wake_one(self._receivers_waiting)


async def _wait(waiting: "deque[asyncio.Future[None]]") -> None:
    future = asyncio.get_running_loop().create_future()
    waiting.append(future)
    try:
        await future
    except BaseException:
        if future in waiting:
            waiting.remove(future)
        raise


def _wake_one(waiting: "deque[asyncio.Future[None]]") -> None:
    """The one that has waited longest, if he does still."""
    while waiting:
        future = waiting.popleft()
        if not future.done():
            future.set_result(None)
            return


class Sender(Generic[Item]):
    """An ``OwnedSink``: the end where things are put. The stream ends when all its senders are closed."""

    def __init__(self, stream: Stream[Item]) -> None:
        self._stream = stream
        self._closed = False
        stream.senders += 1

    async def send(self, item: Item) -> None:
        """Put ``item`` there; waits only where there is no room. Raises ``BrokenResourceError`` if nobody will take it,
        and ``ClosedResourceError`` if this end is closed."""
        while not self._put(item):
            await self._stream.room()

    def send_nowait(self, item: Item) -> None:
        """As ``send``, but raises ``WouldBlock`` where there is no room."""
        if not self._put(item):
            raise WouldBlock

    def clone(self) -> Self:
        """One more such end."""
        return type(self)(self._stream)

    def keeping(self) -> "KeepingSender[Item]":
        """One more end, for what must not be lost."""
        return KeepingSender(self._stream)

    @property
    def fill(self) -> Fill:
        """How full the stream is."""
        return self._stream.fill()

    def close(self) -> None:
        """Put nothing more."""
        if not self._closed:
            self._closed = True
            self._stream.senders -= 1
            if not self._stream.senders:
                self._stream.wake_receivers()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, item: Item) -> bool:
        if self._closed:
            raise ClosedResourceError
        if not self._stream.receivers:
            raise BrokenResourceError
        return self._stream.put(item)


class KeepingSender(Sender[Item]):
    """Puts what has been paid for: also when cancelled meanwhile. Whoever receives it must outlive who sends it."""

    async def send(self, item: Item) -> None:
        """Put ``item`` there, come what may."""
        if not self._put(item):
            with CancelScope(shield=True):
                await super().send(item)


class Receiver(Generic[Item]):
    """The end where things are taken out, each by one receiver: iterate over it until the stream ends."""

    def __init__(self, stream: Stream[Item]) -> None:
        self._stream = stream
        self._closed = False
        stream.receivers += 1

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        stream = self._stream
        while not stream.items:
            if not stream.senders:
                raise StopAsyncIteration
            await stream.something()
        return stream.take()

    def receive_nowait(self) -> Item:
        """What can be had at once. Raises ``WouldBlock`` where there is nothing."""
        if not self._stream.items:
            raise WouldBlock
        return self._stream.take()

    def clone(self) -> "Receiver[Item]":
        """One more such end."""
        return Receiver(self._stream)

    @property
    def fill(self) -> Fill:
        """How full the stream is."""
        return self._stream.fill()

    def close(self) -> None:
        """Take nothing more."""
        if not self._closed:
            self._closed = True
            self._stream.receivers -= 1
            if not self._stream.receivers:
                self._stream.wake_senders()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
