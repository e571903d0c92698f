"""Lets items through whose files are ACTIVE; one poller asks about the files of the others."""

from datetime import datetime
from typing import Protocol

import anyio
import msgspec

from pipeline.activation.schedule import Schedule
from pipeline.errors import Again, Failure, ItemError, PipelineError, TryAgain
from pipeline.gemini.api import FilesApi
from pipeline.records import Content, FileState, Ready, RemoteFile, Uploaded

LOOK_SECONDS = 5.0
"""How often is looked whether a scout has fallen silent, while nothing else happens."""
GRPC_INTERNAL = 13
"""``google.rpc.Code`` of a failure that is the service's own: worth one fresh upload."""


class Storage(Protocol):
    """The project's file storage."""

    async def stored(self, content: Content, file: RemoteFile) -> None:
        """``content`` lies there as ``file``."""
        ...

    async def discard(self, file: RemoteFile) -> None:
        """``file`` lies there and is useless."""
        ...


class _Wait:
    """One PROCESSING file and the items that wait for it."""

    def __init__(self, content: Content, expires_at: datetime | None) -> None:
        self.content = content
        self.expires_at = expires_at
        self.waiters = 0
        self.ended = anyio.Event()
        self.file: RemoteFile | None = None
        self.error: PipelineError | None = None


class ActivationRoom:
    """``handle`` may run for many items at once; ``run`` is the poller and must run beside it."""

    def __init__(self, *, files: FilesApi, storage: Storage, deadline_seconds: float) -> None:
        self._files = files
        self._storage = storage
        self._deadline_seconds = deadline_seconds
        self._schedule = Schedule()
        self._waits: dict[str, _Wait] = {}
        self._changed = anyio.Event()
        self._closed = False

    async def handle(self, uploaded: Uploaded) -> Ready:
        """Take an item on when all its files are ACTIVE. Raises ``ItemError``, ``TryAgain``, ``StopRun``."""
        pending = {p.file.name: p for p in uploaded.parts if p.file and p.file.state is not FileState.ACTIVE}
        if not pending:
            return Ready.of(uploaded)
        waits = {name: self._join(part.media.content, part.file) for name, part in pending.items() if part.file}
        try:
            active = {name: await _ended(wait) for name, wait in waits.items()}
        finally:
            for name, wait in waits.items():
                self._leave(name, wait)
        parts = tuple(
            msgspec.structs.replace(p, file=active.get(p.file.name, p.file)) if p.file else p for p in uploaded.parts
        )
        return Ready.of(msgspec.structs.replace(uploaded, parts=parts))

    @property
    def waiting(self) -> int:
        """Files that are still PROCESSING."""
        return len(self._waits)

    async def run(self) -> None:
        """Ask about files as they fall due, until ``close``. A call without an answer holds up no other."""
        async with anyio.create_task_group() as polls:
            while not self._closed:
                now = anyio.current_time()
                for name in self._schedule.due(now):
                    self._schedule.asking(name, now)
                    polls.start_soon(self._ask, name)
                self._changed = anyio.Event()
                with anyio.move_on_at(min(self._schedule.next_due_at(now), now + LOOK_SECONDS)):
                    await self._changed.wait()
            polls.cancel_scope.cancel()

    def close(self) -> None:
        """No more items will come, and none waits."""
        self._closed = True
        self._changed.set()

    def _join(self, content: Content, file: RemoteFile) -> _Wait:
        wait = self._waits.get(file.name)
        if wait is None:
            wait = self._waits[file.name] = _Wait(content, file.expires_at)
            self._schedule.add(file.name, mime_type=file.mime_type, now=anyio.current_time())
            self._changed.set()
        wait.waiters += 1
        return wait

    def _leave(self, name: str, wait: _Wait) -> None:
        wait.waiters -= 1
        if wait.waiters == 0 and not wait.ended.is_set():
            self._forget(name)

    async def _ask(self, name: str) -> None:
        """Ask about one file; where that takes for ever, the calls about it have a deadline of their own."""
        try:
            with anyio.move_on_after(self._deadline_seconds):
                file = await self._files.get(name)
                await self._heard(name, file)
                return
            raise unanswered(name, self._deadline_seconds)
        except PipelineError as error:
            self._end(name, error=error)
        finally:
            self._changed.set()

    async def _heard(self, name: str, file: RemoteFile) -> None:
        now = anyio.current_time()
        wait = self._waits.get(name)
        if wait is None:
            return
        if file.state is FileState.ACTIVE:
            self._schedule.active(name, now)
            if file.expires_at is None:
                file = msgspec.structs.replace(file, expires_at=wait.expires_at)
            await self._storage.stored(wait.content, file)
            self._end(name, file=file)
        elif file.state is FileState.FAILED:
            await self._storage.discard(file)
            raise failed(file)
        elif self._schedule.age_seconds(name, now) >= self._deadline_seconds:
            await self._storage.discard(file)
            raise stuck(file, self._deadline_seconds)
        else:
            self._schedule.still_processing(name, now)

    def _end(self, name: str, *, file: RemoteFile | None = None, error: PipelineError | None = None) -> None:
        wait = self._waits.get(name)
        self._forget(name)
        if wait:
            wait.file, wait.error = file, error
            wait.ended.set()

    def _forget(self, name: str) -> None:
        self._waits.pop(name, None)
        self._schedule.drop(name)


async def _ended(wait: _Wait) -> RemoteFile:
    await wait.ended.wait()
    if wait.error:
        raise wait.error
    assert wait.file is not None  # noqa: S101 - an ended wait has one or the other
    return wait.file


def failed(file: RemoteFile) -> ItemError | TryAgain:
    """What a FAILED file means for its items: the end, or one fresh upload where the service gave no reason."""
    reason = file.error_message or "no reason given"
    failure = Failure(
        stage="activation", kind="file_failed", message=f"the service could not process the file: {reason}"
    )
    if file.error_code in (None, GRPC_INTERNAL):
        again = msgspec.structs.replace(failure, retryable=True)
        return TryAgain(Again.STUCK, again, file_names=(file.name,))
    return ItemError(failure)


def unanswered(name: str, deadline_seconds: float) -> ItemError:
    """What it means that nothing is told of a file for so long: the next run asks again."""
    message = f"the service did not tell the state of {name} for {deadline_seconds:g} s"
    return ItemError(Failure(stage="activation", kind="unavailable", message=message, retryable=True))


def stuck(file: RemoteFile, deadline_seconds: float) -> TryAgain:
    """What a file means that is still PROCESSING at its deadline: one fresh upload."""
    message = f"the file was still PROCESSING after {deadline_seconds:g} s"
    failure = Failure(stage="activation", kind="stuck_processing", message=message, retryable=True)
    return TryAgain(Again.STUCK, failure, file_names=(file.name,))
