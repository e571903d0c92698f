"""Natural group commit: what arrives while one batch is being committed forms the next one; there is no timer."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import anyio
from anyio import CancelScope, CapacityLimiter, Event
from anyio.to_thread import run_sync

Operation = TypeVar("Operation")
Result = TypeVar("Result")


class CommitTimeout(Exception):
    """A commit did not end in time; whether it will is unknown, so nothing more is committed."""


class CommitterClosed(Exception):
    """``submit`` after ``close``."""


class _Waiting(Generic[Operation, Result]):
    """One submitted operation; its submitter waits for ``done``."""

    __slots__ = ("done", "failure", "operation", "result")
    result: Result

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.done = Event()
        self.failure: Exception | None = None

    def resolve(self, result: Result) -> None:
        self.result = result
        self.done.set()

    def fail(self, failure: Exception) -> None:
        self.failure = failure
        self.done.set()

    def outcome(self) -> Result:
        if self.failure is not None:
            raise self.failure
        return self.result


class GroupCommit(Generic[Operation, Result]):
    """Many tasks submit, one owner task commits everything that waits in a single worker-thread call.

    ``commit`` takes the operations in the order in which they were submitted and returns a result for each. Where it
    raises, all operations of that batch and all later ones fail with its exception: what a failed commit left
    behind is not known. A submitter waits for its own operation, so the queue is never longer than the tasks are many.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Operation]], Sequence[Result]],
        *,
        deadline_seconds: float = 120.0,
        batch_limit: int = 4096,
    ) -> None:
        self._commit = commit
        self._deadline_seconds = deadline_seconds
        self._batch_limit = batch_limit
        self._queue: deque[_Waiting[Operation, Result]] = deque()
        self._arrived = Event()
        self._closed = False
        self._failure: Exception | None = None
        self._thread = CapacityLimiter(1)  # never in a queue behind those who hash media

    async def submit(self, operation: Operation) -> Result:
        """Return the operation's result when its batch is committed.

        A submitter that is cancelled stops waiting; its operation is committed all the same.
        """
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise CommitterClosed
        waiting = _Waiting[Operation, Result](operation)
        self._queue.append(waiting)
        self._arrived.set()
        await waiting.done.wait()
        return waiting.outcome()

    def close(self) -> None:
        """Take nothing more; ``run`` ends when what is queued is committed."""
        self._closed = True
        self._arrived.set()

    async def run(self) -> None:
        """Commit batch after batch until closed or failed.

        Cancellation does not reach it, since others may still owe it something while they are being cancelled:
        whoever starts it must ``close`` it.
        """
        with CancelScope(shield=True):
            while self._failure is None:
                if self._queue:
                    await self._commit_queued()
                elif self._closed:
                    return
                else:
                    self._arrived = Event()
                    await self._arrived.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have ``run`` at work beside the body, and close at its end. What the body raises passes through as it is."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.run)
                try:
                    yield
                finally:
                    self.close()
        except BaseExceptionGroup as group:  # of the body's exception alone: run raises none
            [failure] = group.exceptions
            raise failure from failure.__cause__

    async def _commit_queued(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._batch_limit))]
        try:
            results = await self._in_thread([waiting.operation for waiting in batch])
            for waiting, result in zip(batch, results, strict=True):
                waiting.resolve(result)
        except Exception as failure:  # noqa: BLE001  # whatever it is, it belongs to those who wait
            self._fail(batch, failure)

    async def _in_thread(self, operations: Sequence[Operation]) -> Sequence[Result]:
        with anyio.move_on_after(self._deadline_seconds):
            return await run_sync(self._commit, operations, abandon_on_cancel=True, limiter=self._thread)
        raise CommitTimeout(f"no answer from the disk for {self._deadline_seconds:g} s")

    def _fail(self, batch: Sequence[_Waiting[Operation, Result]], failure: Exception) -> None:
        self._failure = failure
        for waiting in (*batch, *self._queue):
            waiting.fail(failure)
        self._queue.clear()
