"""Natural group commit: what arrives while one batch is being committed forms the next one; there is no timer."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from typing import Generic, NamedTuple, TypeVar

import anyio
from anyio import CancelScope, Event
from anyio.lowlevel import checkpoint

from pipeline.own_thread import OwnThread

COMPANY_TURNS = 4
"""Of the event loop. At thousands of items a second a commit that waits for so many takes a quarter more with it, which
is 7 % of a run's processor; where nothing is at work they are over in 0.1 ms."""

Operation = TypeVar("Operation")
Result = TypeVar("Result")


class CommitTimeout(Exception):
    """A commit did not end in time; whether it will is unknown, so nothing more is committed."""


class CommitterClosed(Exception):
    """``submit`` after ``close``."""


async def company() -> None:
    """Let whoever is about to submit share the commit: its price is the hop to a thread and back."""
    for _ in range(COMPANY_TURNS):
        await checkpoint()


class _Queued(NamedTuple, Generic[Operation, Result]):
    """One operation; ``done`` is what its submitter waits for, None where nobody does."""

    operation: Operation
    done: "asyncio.Future[Result] | None"

    def resolve(self, result: Result) -> None:
        if self.done is not None and not self.done.done():  # else its submitter was cancelled
            self.done.set_result(result)

    def fail(self, failure: Exception) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_exception(failure)


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
        self._queue: deque[_Queued[Operation, Result]] = deque()
        self._arrived = Event()
        self._closed = False
        self._failure: Exception | None = None
        self._thread = OwnThread("group commit")

    async def submit(self, operation: Operation) -> Result:
        """Return the operation's result when its batch is committed.

        A submitter that is cancelled stops waiting; its operation is committed all the same.
        """
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._enqueue(operation, done)
        return await done

    def post(self, operation: Operation) -> None:
        """Have the operation committed, before any that is submitted later, and wait for nothing.

        Whoever depends on it submits something of its own, which fails where this one does.
        """
        self._enqueue(operation, None)

    def close(self) -> None:
        """Take nothing more; ``run`` ends when what is queued is committed."""
        self._closed = True
        self._arrived.set()

    async def run(self) -> None:
        """Commit batch after batch until closed or failed.

        Cancellation does not reach it, since others may still owe it something while they are being cancelled:
        whoever starts it must ``close`` it.
        """
        with CancelScope(shield=True), closing(self._thread):
            while self._failure is None:
                if self._queue:
                    await company()
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

    def _enqueue(self, operation: Operation, done: "asyncio.Future[Result] | None") -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise CommitterClosed
        self._queue.append(_Queued(operation, done))
        self._arrived.set()

    async def _commit_queued(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._batch_limit))]
        try:
            results = await self._in_thread([queued.operation for queued in batch])
            for queued, result in zip(batch, results, strict=True):
                queued.resolve(result)
        except Exception as failure:  # noqa: BLE001  # whatever it is, it belongs to those who wait
            self._fail(batch, failure)

    async def _in_thread(self, operations: Sequence[Operation]) -> Sequence[Result]:
        with anyio.move_on_after(self._deadline_seconds):
            return await self._thread.call(self._commit, operations)
        raise CommitTimeout(f"no answer from the disk for {self._deadline_seconds:g} s")

    def _fail(self, batch: Sequence[_Queued[Operation, Result]], failure: Exception) -> None:
        self._failure = failure
        for queued in (*batch, *self._queue):
            queued.fail(failure)
        self._queue.clear()
