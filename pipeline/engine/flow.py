"""The one page that joins the rooms: which streams connect them, who works where, and how passes follow one another."""

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

import anyio
import msgspec

from pipeline.activation.stage import ActivationRoom
from pipeline.clock import Clock
from pipeline.drain import Drain
from pipeline.engine.worker import SideDoor, stopping, work
from pipeline.errors import Draining, PipelineError, Stage, StopRun, UsageError
from pipeline.events import Observer
from pipeline.generation.stage import GenerationRoom
from pipeline.ledger.api import Ledger
from pipeline.manifest.stage import ManifestRoom
from pipeline.records import Item, Outcome, Ready, Uploaded
from pipeline.results.stage import ResultsRoom
from pipeline.retention.stage import Retention
from pipeline.streams import OwnedSink, Receiver, Sender, Sink, Stream
from pipeline.upload.stage import UploadRoom

BUFFERED_ITEMS = 64
"""Items that may lie between two rooms; they hold no media."""

ITEMS_WAITING_FOR_ACTIVE = 512
"""Items that may wait for their files at once: the size of the activation room."""

ITEMS_WAITING_FOR_UPLOAD = 512
"""Items that may wait for an upload at once while those that need none go past them."""

MEDIA_WAITING_FOR_UPLOAD = 16_384
"""Media of these items, and of one more: a series of thousands takes as much memory as thousands of items."""

ITEMS_PER_UPLOAD_LANE = 2
"""Items in the upload room for each file that travels: one travels while another claims its space."""

Feed = Callable[[Sink[Item], Sink[Outcome]], Awaitable[None]]
"""Sends items, and outcomes of rows that can't become items."""


class Rooms(msgspec.Struct, frozen=True, kw_only=True):
    """The rooms of a run, open."""

    manifest: ManifestRoom
    upload: UploadRoom
    activation: ActivationRoom
    generation: GenerationRoom
    results: ResultsRoom
    retention: Retention


class Flow:
    """One run through the rooms. ``run`` returns when every item is committed, or a drain has ended."""

    def __init__(
        self,
        *,
        rooms: Rooms,
        ledger: Ledger,
        drain: Drain,
        clock: Clock,
        work: anyio.CancelScope,
        observer: Observer,
        uploads: int,
        concurrency: int,
    ) -> None:
        """``work`` is what ends when a drain has lasted too long; answers received are still committed then."""
        self._rooms = rooms
        self._ledger = ledger
        self._drain = drain
        self._clock = clock
        self._upload_workers = uploads * ITEMS_PER_UPLOAD_LANE
        self._generation_workers = concurrency
        self._work = work
        self._observer = observer
        self.queues: dict[Stage, tuple[Receiver[Any], ...]] = {}
        """The streams before the stages, of the pass that is on; upload's are those that manifest fills."""

    async def run(self) -> None:
        """First the source, then as many further passes as items ask for."""
        rooms = self._rooms
        async with anyio.create_task_group() as keepers:
            keepers.start_soon(self._kept_up, rooms.retention.run)
            keepers.start_soon(self._kept_up, rooms.activation.run)
            try:
                outcomes, committing = Stream[Outcome](max(BUFFERED_ITEMS, self._generation_workers)).ends()
                async with anyio.create_task_group() as results:
                    results.start_soon(rooms.results.run, committing)
                    async with outcomes:
                        with self._work:
                            await self._passes(outcomes)
            finally:
                rooms.activation.close()
                rooms.retention.close()

    async def _kept_up(self, run: Callable[[], Awaitable[None]]) -> None:
        with stopping(self._drain):
            await run()

    async def _passes(self, outcomes: Sender[Outcome]) -> None:
        await self._pass(self._rooms.manifest.run, outcomes)
        while not self._drain.begun:
            left = self._ledger.requeued()
            first = await anext(left, None)
            if first is None:
                return

            async def feed(items: Sink[Item], _: Sink[Outcome], first: Item = first) -> None:
                await items.send(first)
                async for item in left:  # noqa: B023 - the feed ends before the next round begins
                    await items.send(item)

            await self._pass(feed, outcomes)

    async def _pass(self, feed: Feed, outcomes: Sender[Outcome]) -> None:
        """Run ``feed`` through the rooms. A drain cuts the intake off; generation ends what it has sent."""
        door = SideDoor(
            outcomes=outcomes,
            ledger=self._ledger,
            storage=self._rooms.retention,
            clock=self._clock,
            observer=self._observer,
        )
        worker = partial(work, door=door, drain=self._drain)
        ready, asking = Stream[Ready](BUFFERED_ITEMS).ends()
        self.queues["generation"] = (asking,)
        async with anyio.create_task_group() as generation:
            async with asking:
                for _ in range(self._generation_workers):
                    durably = UntilDurable(outcomes.keeping(), self._rooms.results)
                    generation.start_soon(worker, asking.clone(), self._rooms.generation.handle, durably)
            async with ready:
                with suppress(Draining), self._drain.interruptible():
                    await self._intake(feed, ready, outcomes, worker)

    async def _intake(
        self,
        feed: Feed,
        ready: Sender[Ready],
        outcomes: Sender[Outcome],
        worker: Callable[..., Coroutine[Any, Any, None]],
    ) -> None:
        travelling, uploading = Stream[Item](ITEMS_WAITING_FOR_UPLOAD).ends()
        there, passing = Stream[Item](BUFFERED_ITEMS).ends()
        uploaded, activating = Stream[Uploaded](BUFFERED_ITEMS).ends()
        self.queues |= {"upload": (uploading, passing), "activation": (activating,)}
        async with self._rooms.upload as upload, activating, anyio.create_task_group() as intake:

            def hire() -> None:
                intake.start_soon(worker, activating.clone(), self._rooms.activation.handle, ready.clone())

            crew = Crew(hire, ITEMS_WAITING_FOR_ACTIVE)
            series = MediaBound(MEDIA_WAITING_FOR_UPLOAD)

            def handle_travelling(item: Item) -> Awaitable[Uploaded]:
                series.left(item)
                return upload.handle(item)

            async with uploading, passing, uploaded:
                for lane, handle in ((uploading, handle_travelling), (passing, upload.handle)):
                    for _ in range(self._upload_workers):
                        fork = PastActivation(ready.clone(), Hiring(uploaded.clone(), crew))
                        intake.start_soon(worker, lane.clone(), handle, fork)
            async with PastUploading(upload.must_wait, series, travelling, there) as items:
                await self._fed(feed, items, outcomes)

    async def _fed(self, feed: Feed, items: Sink[Item], outcomes: Sink[Outcome]) -> None:
        try:
            await feed(items, outcomes)
        except (StopRun, UsageError) as stop:
            self._drain.begin(stop.exit_code, str(stop))


class Crew:
    """Workers that are started as they are needed: most runs wait for few files, many for none."""

    def __init__(self, hire: Callable[[], None], most: int) -> None:
        self._hire = hire
        self._left = most

    def meet(self, idle: int) -> None:
        """One more item is about to wait, and ``idle`` workers are free: start another where none is."""
        if not idle and self._left:
            self._left -= 1
            self._hire()


class MediaBound:
    """Bounds the media of the items in a stream, which itself counts items only."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._freed = anyio.Event()

    async def enter(self, item: Item) -> None:
        """Wait until there is room for any; what ``item`` has more than that is let in."""
        while self._free <= 0:
            self._freed = anyio.Event()
            await self._freed.wait()
        self._free -= len(item.media)

    def left(self, item: Item) -> None:
        """``item`` was taken out of the stream."""
        self._free += len(item.media)
        self._freed.set()


class Fork:
    """The base of sinks that put items on ways of their own."""

    def __init__(self, *ways: OwnedSink[Any]) -> None:
        self._ways = AsyncExitStack()
        for way in ways:
            self._ways.push_async_exit(way)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._ways.aclose()


class Hiring(Fork):
    """Puts items before a crew."""

    def __init__(self, uploaded: Sender[Uploaded], crew: Crew) -> None:
        super().__init__(uploaded)
        self._uploaded = uploaded
        self._crew = crew

    async def send(self, item: Uploaded) -> None:
        """Have somebody there who takes ``item``, and put it."""
        self._crew.meet(self._uploaded.fill.receivers_waiting)
        await self._uploaded.send(item)


class PastUploading(Fork):
    """Uploads may be down while generation is well: items that need none don't stand in their queue."""

    def __init__(
        self,
        must_wait: Callable[[Item], bool],
        series: MediaBound,
        travelling: OwnedSink[Item],
        there: OwnedSink[Item],
    ) -> None:
        super().__init__(travelling, there)
        self._must_wait = must_wait
        self._series = series
        self._travelling = travelling
        self._there = there

    async def send(self, item: Item) -> None:
        """Wait for room on the item's way."""
        if self._must_wait(item):
            await self._series.enter(item)
            await self._travelling.send(item)
        else:
            await self._there.send(item)


class PastActivation(Fork):
    """Items whose files are all ACTIVE go past the activation room, and the others into it."""

    def __init__(self, ready: OwnedSink[Ready], uploaded: OwnedSink[Uploaded]) -> None:
        super().__init__(ready, uploaded)
        self._ready = ready
        self._uploaded = uploaded

    async def send(self, item: Uploaded) -> None:
        """Wait for room on the item's way."""
        if item.is_active:
            await self._ready.send(Ready.of(item))
        else:
            await self._uploaded.send(item)


class UntilDurable(Fork):
    """A sink that holds its worker until the outcome is durable.

    A kill makes us pay again for the calls that are out and for the answers that still wait for the disk: together
    they are never more than the workers of generation.
    """

    def __init__(self, outcomes: OwnedSink[Outcome], results: ResultsRoom) -> None:
        super().__init__(outcomes)
        self._outcomes = outcomes
        self._results = results

    async def send(self, item: Outcome) -> None:
        """Send, and wait for the commit."""
        durable = self._results.expect(item)
        await self._outcomes.send(item)
        await durable


def first_of_ours(error: BaseException) -> PipelineError | None:
    """The first of our own errors inside ``error``, which may be a nest of groups; None where a foreign one is in it,
    for that is a bug, whatever else went wrong."""
    if isinstance(error, BaseExceptionGroup):
        _, foreign = error.split(PipelineError)
        return None if foreign else first_of_ours(error.exceptions[0])
    return error if isinstance(error, PipelineError) else None
