"""Keeps the project's file storage: pins what items need, frees what nobody needs, remembers it in the ledger."""

from collections.abc import Iterable, Mapping
from contextlib import suppress

import anyio

from pipeline.clock import Clock
from pipeline.errors import Draining, ItemError, StopEarly, StopRun
from pipeline.events import FileDeleted, GateClosed, Observer
from pipeline.gemini.api import FilesApi
from pipeline.ledger.api import Ledger, Upload
from pipeline.records import Content, FileState, Outcome, Placed, RemoteFile
from pipeline.retention.budget import Granted, MakeRoom, StorageBudget

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
        self._more_idle = anyio.Event()
        self._closed = False

    async def open(self) -> None:
        """Take in what earlier runs left in the storage."""
        now = self._clock.now()
        gone = []
        for upload in await self._ledger.uploads():
            if upload.file.usable_at(now, 0) and upload.file.state is not FileState.FAILED:
                self._budget.stored(Content(upload.sha256, upload.file.mime_type), upload.file)
            else:
                gone.append(upload.file.name)
        await self._ledger.forget_uploads(gone)

    # for the upload room ----------------------------------------------------------------------------------
    async def claim(self, needs: Mapping[Content, int]) -> None:
        """Pin ``needs`` (content to size in bytes) for one item, waiting for space while it holds none.

        Raises ``StopEarly`` where space can't be had.
        """
        decision = self._budget.claim(needs)
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
        self._budget.stored(content, file)
        now = self._clock.now()
        await self._ledger.remember_upload(Upload(sha256=content.sha256, file=file, last_used_at=now))

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
        self._idle.append(file)
        self._more_idle.set()

    def release(self, contents: Iterable[Content]) -> None:
        """One item needs ``contents`` no more."""
        idle = self._budget.release(contents)
        if not self._keep and idle:
            self._idle.extend(idle)
            self._more_idle.set()
        self._wake()

    def committed(self, outcome: Outcome) -> None:
        """An item's line is durable: it needs its files no more."""
        self.release(remote_contents(outcome.parts))

    # for the flow -----------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Delete what is useless, and what falls idle where the configuration says so, until ``close``."""
        while True:
            idle, self._idle = self._idle, []
            for file in idle:
                with suppress(Draining, StopRun):  # the drain has begun, and calls that are out may end
                    await self._delete(file)
            if self._idle:
                continue
            if self._closed:
                return
            self._more_idle = anyio.Event()
            await self._more_idle.wait()

    def close(self) -> None:
        """No more items will be released."""
        self._closed = True
        self._more_idle.set()

    async def _wait_for_space(self, needs: Mapping[Content, int]) -> None:
        waited = False
        while True:
            released = self._released = anyio.Event()
            decision = self._budget.claim(needs)
            if isinstance(decision, Granted):
                return
            if isinstance(decision, MakeRoom):
                for victim in decision.victims:
                    await self._delete(victim)
                continue
            if not waited:
                waited = True
                notice = "uploads wait for space in the project's file storage"
                self._observer.notify(GateClosed(cause="storage", wait_seconds=self._wait_seconds, message=notice))
            with anyio.move_on_after(PROBE_SECONDS) as probe:
                await released.wait()
            if probe.cancelled_caught:
                self._budget.probe(sum(needs.values()))

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


def remote_contents(parts: Iterable[Placed]) -> set[Content]:
    """The contents that one item had pinned."""
    return {part.media.content for part in parts if part.file}
