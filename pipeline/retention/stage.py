"""Keeps the project's file storage: pins what items need, frees what nobody needs, remembers it in the ledger."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import aclosing, suppress
from itertools import chain

import anyio

from pipeline.clock import Clock
from pipeline.errors import Draining, ItemError, StopEarly, StopRun
from pipeline.events import FileDeleted, GateClosed, Observer
from pipeline.gemini.api import FilesApi
from pipeline.lanes import side_by_side
from pipeline.ledger.api import Ledger, Upload
from pipeline.records import Content, FileState, Outcome, Placed, RemoteFile
from pipeline.retention.budget import Decision, Granted, LookBack, MakeRoom, StorageBudget

DELETIONS_AT_ONCE = 8
FORGOTTEN_AT_ONCE = 1000

PROBE_SECONDS = 60.0
"""How often a waiting item lets the service be asked again: other programs may have freed space."""


class Retention:
    """What lies in the storage. Only files that this run folder's ledger uploaded are ever deleted."""

    def __init__(
        self,
        *,
        budget: StorageBudget,
        files: FilesApi,
        ledger: Ledger,
        clock: Clock,
        observer: Observer,
        keep: bool,
        wait_seconds: float,
    ) -> None:
        self._budget = budget
        self._files = files
        self._ledger = ledger
        self._clock = clock
        self._observer = observer
        self._keep = keep
        self._wait_seconds = wait_seconds
        self._turn = anyio.Lock()  # claims that need space are served in order, so that a large one can't starve
        self._released = anyio.Event()
        self._idle: list[RemoteFile] = []
        self._useless: list[RemoteFile] = []
        self._more_to_free = anyio.Event()
        self._closed = False

    async def open(self) -> None:
        """Take in what earlier runs left in the storage."""
        gone: list[str] = []
        async with aclosing(self._ledger.uploads()) as uploads:
            async for upload in uploads:
                if self._is_usable(upload.file):
                    self._budget.stored(_content(upload), upload.file, upload.last_used_at)
                    self._budget.put_out_of_mind()
                else:
                    gone.append(upload.file.name)
                if len(gone) >= FORGOTTEN_AT_ONCE:
                    await self._ledger.forget_uploads(gone)
                    gone.clear()
        await self._ledger.forget_uploads(gone)

    # for the upload room ----------------------------------------------------------------------------------
    async def claim(self, needs: Mapping[Content, int]) -> None:
        """Pin ``needs`` (content to size in bytes) for one item, waiting for space while it holds none.

        Raises ``StopEarly`` where space can't be had.
        """
        decision = await self._decide(needs)
        if isinstance(decision, Granted):
            return
        async with self._turn:
            with anyio.move_on_after(self._wait_seconds):
                await self._wait_for_space(needs)
                return
        raise StopEarly(
            f"no room in the project's file storage for {sum(needs.values())} bytes after {self._wait_seconds:.0f} s; "
            "free some with `pipeline files delete`, or run again later"
        )

    async def refuse(self, needs: Mapping[Content, int]) -> None:
        """The service refused an upload for one item: give its claim back and think smaller.

        Raises ``StopEarly`` when we hold nothing that could be freed.
        """
        self.release(needs)
        if not self._budget.refused():
            raise StopEarly(
                "the project's file storage is full, and none of it is this run's: delete files "
                "(`pipeline files list`, `pipeline files delete`) or run again when they have expired (48 h)"
            )

    @property
    def is_short_of_space(self) -> bool:
        """Whether an item waits for space."""
        return self._turn.locked()

    def known(self, content: Content) -> RemoteFile | None:
        """A file that holds ``content`` already and can be planned with."""
        return self._budget.known(content, self._clock.now())

    async def stored(self, content: Content, file: RemoteFile) -> None:
        """``content`` was uploaded as ``file``, or its state has changed."""
        now = self._clock.now()
        self._budget.stored(content, file, now)
        await self._ledger.remember_upload(Upload(sha256=content.sha256, file=file, last_used_at=now))
        await self._put_out_of_mind()

    async def lost(self, names: Iterable[str]) -> None:
        """These files are gone, or useless."""
        names = list(names)
        for name in names:
            self._budget.dropped(name)
        await self._ledger.forget_uploads(names)
        self._wake()

    async def discard(self, file: RemoteFile) -> None:
        """``file`` is there and useless: it is deleted soon, and counted on no more."""
        await self.lost([file.name])
        self._useless.append(file)
        self._more_to_free.set()

    async def replace(self, file: RemoteFile) -> None:
        """An item that needs ``file`` wants it uploaded afresh; it is deleted unless others need it too."""
        if self._budget.needed_by(file.name) <= 1:
            await self.discard(file)
        else:
            await self.lost([file.name])

    def release(self, contents: Iterable[Content]) -> None:
        """One item needs ``contents`` no more."""
        idle = self._budget.release(contents, self._clock.now())
        if not self._keep and idle:
            self._idle.extend(idle)
            self._more_to_free.set()
        self._wake()

    def committed(self, outcome: Outcome) -> None:
        """An item's line is durable: it needs its files no more."""
        self.release(remote_contents(outcome.parts))

    # for the flow -----------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Delete what is useless, and what falls idle where the configuration says so, until ``close``."""
        while True:
            idle, useless = self._idle, self._useless
            self._idle, self._useless = [], []
            await side_by_side(self._free, chain(useless, self._withdrawn(idle)), lanes=DELETIONS_AT_ONCE)
            if self._idle or self._useless:
                continue
            if self._closed:
                return
            self._more_to_free = anyio.Event()
            await self._more_to_free.wait()

    def close(self) -> None:
        """No more items will be released."""
        self._closed = True
        self._more_to_free.set()

    async def _wait_for_space(self, needs: Mapping[Content, int]) -> None:
        waited = False
        while True:
            released = self._released = anyio.Event()
            decision = await self._decide(needs)
            if isinstance(decision, Granted):
                return
            if isinstance(decision, MakeRoom):
                await side_by_side(self._delete, self._withdrawn(decision.victims), lanes=DELETIONS_AT_ONCE)
                continue
            if isinstance(decision, LookBack):
                await self._delete_out_of_mind(decision.size_bytes)
                continue
            if not waited:
                waited = True
                notice = "uploads wait for space in the project's file storage"
                self._observer.notify(GateClosed(cause="storage", wait_seconds=self._wait_seconds, message=notice))
            with anyio.move_on_after(PROBE_SECONDS) as probe:
                await released.wait()
            if probe.cancelled_caught:
                self._budget.probe(sum(needs.values()))

    async def _decide(self, needs: Mapping[Content, int]) -> Decision:
        """The budget's decision, once it knows of every file that holds one of ``needs``."""
        if self._budget.unsure(needs):
            for upload in await self._ledger.uploads_of(list(needs)):
                if self._is_usable(upload.file):
                    self._budget.recalled(_content(upload), upload.file, self._clock.now())
        return self._budget.claim(needs)

    async def _put_out_of_mind(self) -> None:
        """Let the ledger alone remember which files nobody has needed for long, and when they were used last."""
        if put := self._budget.put_out_of_mind():
            await self._ledger.touch_uploads([(file.name, used_at) for file, used_at in put])

    async def _delete_out_of_mind(self, size_bytes: int) -> None:
        """Free so many bytes of files that the ledger alone remembers, or find that there are none."""
        victims: list[RemoteFile] = []
        freed_bytes = 0
        async with aclosing(self._ledger.uploads()) as uploads:
            async for upload in uploads:
                if freed_bytes >= size_bytes:
                    break
                if self._budget.holds(_content(upload)):
                    continue
                self._budget.recalled(_content(upload), upload.file, upload.last_used_at)
                if self._budget.withdraw(upload.file):
                    victims.append(upload.file)
                    freed_bytes += upload.file.size_bytes
            else:
                self._budget.nothing_out_of_mind()
        await side_by_side(self._delete, victims, lanes=DELETIONS_AT_ONCE)

    def _is_usable(self, file: RemoteFile) -> bool:
        return file.usable_at(self._clock.now(), 0) and file.state is not FileState.FAILED

    def _withdrawn(self, files: Iterable[RemoteFile]) -> Iterator[RemoteFile]:
        """Those of ``files`` that nobody has come to need when their turn comes."""
        return (file for file in files if self._budget.withdraw(file))

    async def _free(self, file: RemoteFile) -> None:
        with suppress(Draining, StopRun):  # the drain has begun, and calls that are out may end
            await self._delete(file)

    async def _delete(self, file: RemoteFile) -> None:
        try:
            await self._files.delete(file.name)
        except ItemError:
            pass  # it expires by itself; what matters is that we no longer count on it
        else:
            self._observer.notify(FileDeleted(name=file.name, size_bytes=file.size_bytes))
        await self.lost([file.name])

    def _wake(self) -> None:
        self._released.set()


def _content(upload: Upload) -> Content:
    return Content(upload.sha256, upload.file.mime_type)


def remote_contents(parts: Iterable[Placed]) -> set[Content]:
    """The contents that one item had pinned."""
    return {part.media.content for part in parts if part.file}
