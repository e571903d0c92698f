"""Bounded streams between rooms, made for thousands of items a second.

anyio's memory object streams yield at each ``send`` and ``receive``, and wake a sender for each item that is taken
from a full one. Here nobody yields where there is room, or something to take: workers that await a call for each item
are fair as they are. And senders that found a stream full are woken when half of it is free, as many at once as there
is room for: then whoever takes, and who puts, go on for a while without each other.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
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
    """What lies between the ends, and who waits there; used through its ends only.

    Who waits for room is woken in turn, and has its place kept: nobody is quicker, or woken in vain.
    """

    def __init__(self, capacity: int) -> None:
        """At most ``capacity`` items lie there, at least one."""
        assert capacity >= 1  # noqa: S101 - else nothing would ever get through
        self._capacity = capacity
        self.items: deque[Item] = deque()
        self.senders = self.receivers = 0
        self._senders_waiting: deque[asyncio.Future[None]] = deque()
        self._receivers_waiting: deque[asyncio.Future[None]] = deque()
        self._places_kept = 0
        """For senders that have been woken and have not gone on yet."""

    def ends(self) -> "tuple[Sender[Item], Receiver[Item]]":
        """The first two ends, each to be closed."""
        return Sender(self), Receiver(self)

    def fill(self) -> Fill:
        """How full it is."""
        return Fill(
            len(self.items), self.senders, len(self._senders_waiting), self.receivers, len(self._receivers_waiting)
        )

    @property
    def has_room(self) -> bool:
        """Whether one more may put something there without waiting: nobody has waited for longer."""
        return not self._senders_waiting and self._room > 0

    def put(self, item: Item) -> None:
        """Put it there; to be asked only where there is room, or a place was kept."""
        self.items.append(item)
        _wake_one(self._receivers_waiting)

    def take(self) -> Item:
        """Take what was put there first. Raises ``IndexError`` where there is nothing."""
        item = self.items.popleft()
        if self._senders_waiting and len(self.items) <= self._capacity // 2:
            self._wake_senders(self._room)
        return item

    async def place(self) -> None:
        """Wait until there is room, which is then kept for who has waited."""
        future = asyncio.get_running_loop().create_future()
        self._senders_waiting.append(future)
        try:
            await future
        except BaseException:
            if future.cancelled():
                _forget(future, self._senders_waiting)
            else:  # it was woken just now, and cancelled before it could go on
                self._places_kept -= 1
                self._wake_senders(self._room)
            raise
        self._places_kept -= 1

    async def something(self) -> None:
        """Wait until there may be something to take: others may be quicker."""
        future = asyncio.get_running_loop().create_future()
        self._receivers_waiting.append(future)
        try:
            await future
        except BaseException:
            if future.cancelled():
                _forget(future, self._receivers_waiting)
            elif self.items:  # one of them was meant for who was cancelled just now
                _wake_one(self._receivers_waiting)
            raise

    def end(self) -> None:
        """Nobody puts, or nobody takes, anything there any more: whoever waits must hear of it."""
        self._wake_senders(len(self._senders_waiting))
        while _wake_one(self._receivers_waiting):
            pass

    @property
    def _room(self) -> int:
        return self._capacity - len(self.items) - self._places_kept

    def _wake_senders(self, most: int) -> None:
        for _ in range(most):
            if not _wake_one(self._senders_waiting):
                return
            self._places_kept += 1


def _forget(future: "asyncio.Future[None]", waiting: "deque[asyncio.Future[None]]") -> None:
    with suppress(ValueError):  # it was passed over already
        waiting.remove(future)


def _wake_one(waiting: "deque[asyncio.Future[None]]") -> bool:
    """The one that has waited longest and does still; tells whether there was one."""
    while waiting:
        future = waiting.popleft()
        if not future.done():  # else it was cancelled
            future.set_result(None)
            return True
    return False


class _End(ABC, Generic[Item]):
    """Closed once, or by leaving its context."""

    def __init__(self, stream: Stream[Item]) -> None:
        self._stream = stream
        self._closed = False

    def clone(self) -> Self:
        """One more such end."""
        if self._closed:
            raise ClosedResourceError
        return type(self)(self._stream)

    @property
    def fill(self) -> Fill:
        """How full the stream is."""
        return self._stream.fill()

    def close(self) -> None:
        """Put, or take, nothing more."""
        if not self._closed:
            self._closed = True
            self._leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _leave(self) -> None: ...


class Sender(_End[Item]):
    """An ``OwnedSink``: the end where things are put. The stream ends when all its senders are closed."""

    def __init__(self, stream: Stream[Item]) -> None:
        super().__init__(stream)
        stream.senders += 1

    async def send(self, item: Item) -> None:
        """Put ``item`` there; waits only where there is no room. Raises ``BrokenResourceError`` if nobody will take it,
        and ``ClosedResourceError`` if this end is closed."""
        self._check()
        if not self._stream.has_room:
            await self._stream.place()
            self._check()
        self._stream.put(item)

    def send_nowait(self, item: Item) -> None:
        """As ``send``, but raises ``WouldBlock`` where there is no room."""
        self._check()
        if not self._stream.has_room:
            raise WouldBlock
        self._stream.put(item)

    def keeping(self) -> "KeepingSender[Item]":
        """One more end, for what must not be lost."""
        return KeepingSender(self._stream)

    def _leave(self) -> None:
        self._stream.senders -= 1
        if not self._stream.senders:
            self._stream.end()

    def _check(self) -> None:
        if self._closed:
            raise ClosedResourceError
        if not self._stream.receivers:
            raise BrokenResourceError


class KeepingSender(Sender[Item]):
    """Puts what has been paid for: also when cancelled meanwhile. Whoever receives it must outlive who sends it."""

    async def send(self, item: Item) -> None:
        """Put ``item`` there, come what may."""
        if self._stream.has_room:
            await super().send(item)
        else:
            with CancelScope(shield=True):
                await super().send(item)


class Receiver(_End[Item]):
    """The end where things are taken out, each by one receiver: iterate over it until the stream ends."""

    def __init__(self, stream: Stream[Item]) -> None:
        super().__init__(stream)
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
        if self._closed:
            raise ClosedResourceError
        if not self._stream.items:
            raise WouldBlock
        return self._stream.take()

    def _leave(self) -> None:
        self._stream.receivers -= 1
        if not self._stream.receivers:
            self._stream.end()
