"""Brings the bytes of items to where they need to be: inline, reused, joined to an upload on its way, or uploaded."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self

import anyio
import msgspec
from anyio.abc import TaskGroup

from pipeline.clock import Clock
from pipeline.errors import StorageFull
from pipeline.events import BytesUploaded, Observer
from pipeline.gemini.api import FilesApi
from pipeline.lanes import side_by_side
from pipeline.limits import Limits
from pipeline.records import Content, Item, Media, Placed, RemoteFile, Uploaded
from pipeline.spec import UploadSpec
from pipeline.upload.plan import Travel, check_storage, contents, travel


class Storage(Protocol):
    """The project's file storage; every ``claim`` is answered by one ``release`` or ``refuse``."""

    async def claim(self, needs: Mapping[Content, int]) -> None:
        """Reserve all ``needs`` (content to size in bytes) for one item; waits holding none. Raises ``StopEarly``."""
        ...

    async def refuse(self, needs: Mapping[Content, int]) -> None:
        """The service had no room after all. Raises ``StopEarly`` where nothing can be freed."""
        ...

    def known(self, content: Content) -> RemoteFile | None:
        """A file that holds ``content`` and lives long enough."""
        ...

    async def stored(self, content: Content, file: RemoteFile) -> None:
        """``content`` lies there as ``file``."""
        ...

    def release(self, contents: Iterable[Content]) -> None:
        """One item needs ``contents`` no more."""
        ...


class _Flight:
    """One upload on its way, and how many items wait for it."""

    __slots__ = ("error", "file", "landed", "scope", "waiters")

    def __init__(self, *, alone: bool) -> None:
        self.waiters = 0
        self.landed = anyio.Event()
        self.scope = None if alone else anyio.CancelScope()
        self.file: RemoteFile | None = None
        self.error: Exception | None = None


class UploadRoom:
    """``handle`` may run for many items at once; at most ``uploads`` files travel at the same time.

    An upload belongs to its content, not to an item: it goes on when the item that began it fails, as long as
    another waits for it. Used as a context manager, within which uploads may run.
    """

    def __init__(
        self,
        *,
        files: FilesApi,
        storage: Storage,
        check_model: Callable[[str], Awaitable[None]],
        spec: UploadSpec,
        limits: Limits,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._files = files
        self._storage = storage
        self._check_model = check_model
        self._spec = spec
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._flights: dict[Content, _Flight] = {}
        self._lanes = anyio.Semaphore(spec.uploads, fast_acquire=True)
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._tasks is not None  # noqa: S101
        self._tasks.cancel_scope.cancel()  # whatever still flies, nobody waits for
        return await self._tasks.__aexit__(kind, error, trace)

    async def handle(self, item: Item) -> Uploaded:
        """Take ``item`` on. Raises ``ItemError``, ``StopRun``."""
        await self._check_model(item.model)
        started_at = self._clock.now()
        files = await self._place(item) if self._way(item) is Travel.FILES else {}
        parts = tuple(Placed(media=media, file=files.get(media.content)) for media in item.media)
        return Uploaded(item=item, parts=parts, started_at=started_at)

    def travelling(self) -> tuple[int, int]:
        """Files on their way, and files that wait for their turn."""
        on_their_way = self._spec.uploads - self._lanes.value
        return on_their_way, max(0, len(self._flights) - on_their_way)

    def must_wait(self, item: Item) -> bool:
        """Whether ``item`` has media that must be uploaded first."""
        return self._way(item) is Travel.FILES and not all(self._storage.known(m.content) for m in item.media)

    def _way(self, item: Item) -> Travel:
        return travel(item, via=self._spec.via, inline_max_bytes=self._spec.inline_max_bytes, limits=self._limits)

    async def _place(self, item: Item) -> dict[Content, RemoteFile]:
        check_storage(item, self._limits)
        needs = contents(item)
        sizes = {content: media.size_bytes for content, media in needs.items()}
        while True:
            await self._storage.claim(sizes)
            try:
                return await self._obtain_all(needs)
            except StorageFull:
                await self._storage.refuse(sizes)
            except BaseException:
                self._storage.release(sizes)
                raise

    async def _obtain_all(self, needs: Mapping[Content, Media]) -> dict[Content, RemoteFile]:
        if len(needs) == 1:
            [(content, media)] = needs.items()
            return {content: await self._obtain(content, media, alone=True)}
        found: dict[Content, RemoteFile] = {}

        async def obtain(need: tuple[Content, Media]) -> None:
            found[need[0]] = await self._obtain(*need)

        await side_by_side(obtain, needs.items(), lanes=min(len(needs), self._spec.uploads))
        return found

    async def _obtain(self, content: Content, media: Media, *, alone: bool = False) -> RemoteFile:
        """The file of ``content``: one that is there, one on its way, or a new one.

        ``alone`` tells that only the end of all uploads can end this wait: it then needs no task of its own.
        """
        if file := self._storage.known(content):
            return file
        flight = self._flights.get(content)
        if flight is None:
            flight = self._flights[content] = _Flight(alone=alone)
            if flight.scope is None:
                await self._fly(flight, content, media)
            else:
                assert self._tasks is not None  # noqa: S101
                self._tasks.start_soon(self._fly_off, flight, flight.scope, content, media)
        if not flight.landed.is_set():
            await self._wait_for(flight, content)
        if flight.error:
            raise flight.error
        assert flight.file is not None  # noqa: S101
        return flight.file

    async def _wait_for(self, flight: _Flight, content: Content) -> None:
        """Wait until it lands; it is cancelled when the last who waits leaves."""
        flight.waiters += 1
        try:
            await flight.landed.wait()
        finally:
            flight.waiters -= 1
            if flight.scope is not None and flight.waiters == 0 and not flight.landed.is_set():
                self._flights.pop(content, None)
                flight.scope.cancel()

    async def _fly_off(self, flight: _Flight, scope: anyio.CancelScope, content: Content, media: Media) -> None:
        with scope:
            await self._fly(flight, content, media)

    async def _fly(self, flight: _Flight, content: Content, media: Media) -> None:
        def progress(size_bytes: int) -> None:
            self._observer.notify(BytesUploaded(size_bytes=size_bytes))

        try:
            async with self._lanes:
                begun_at = self._clock.now()
                file = await self._files.upload(media, progress=progress)
            if file.expires_at is None:
                expires_at = begun_at + timedelta(seconds=self._limits.file_life_seconds)
                file = msgspec.structs.replace(file, expires_at=expires_at)
            await self._storage.stored(content, file)
            flight.file = file
        except Exception as error:  # noqa: BLE001 - it is raised in every item that waits
            flight.error = error
        if self._flights.get(content) is flight:
            del self._flights[content]
        flight.landed.set()
