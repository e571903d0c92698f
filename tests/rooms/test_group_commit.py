"""Group commit: order, sharing of a commit, failure, cancellation and closing."""

import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest

from pipeline.group_commit import CommitterClosed, CommitTimeout, GroupCommit


class Recorder:
    """A commit function that keeps its batches and doubles numbers."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self.seconds = seconds
        self.fail_at: int | None = None

    def __call__(self, batch: Sequence[int]) -> list[int]:
        time.sleep(self.seconds)
        self.batches.append(list(batch))
        if self.fail_at in batch:
            raise OSError("no space")
        return [2 * n for n in batch]

    @property
    def taken(self) -> list[int]:
        return [n for batch in self.batches for n in batch]


@asynccontextmanager
async def running(
    commit: Callable[[Sequence[int]], Sequence[int]], **options: float
) -> AsyncIterator[GroupCommit[int, int]]:
    """A committer at work, closed at the end."""
    committer = GroupCommit[int, int](commit, **options)  # type: ignore[arg-type]
    async with committer.running():
        yield committer


async def test_each_submitter_gets_its_own_result_and_order_is_kept() -> None:
    """Results belong to their operations, and operations are committed in the order of submission."""
    recorder = Recorder()
    results: dict[int, int] = {}

    async def submit(n: int) -> None:
        results[n] = await committer.submit(n)

    async with running(recorder) as committer, anyio.create_task_group() as tasks:
        for n in range(100):
            tasks.start_soon(submit, n)
    assert results == {n: 2 * n for n in range(100)}
    assert recorder.taken == list(range(100))


async def test_what_arrives_during_a_commit_shares_the_next_one() -> None:
    """A hundred submitters behind one slow commit need one more commit, not a hundred."""
    recorder = Recorder(seconds=0.05)
    async with running(recorder) as committer, anyio.create_task_group() as tasks:
        tasks.start_soon(committer.submit, 0)
        await anyio.sleep(0.01)
        for n in range(1, 101):
            tasks.start_soon(committer.submit, n)
    assert recorder.batches == [[0], list(range(1, 101))]


async def test_throughput_grows_with_waiters() -> None:
    """With a commit that takes 5 ms, 64 submitters get at least twenty times as much through as one."""

    async def through(waiters: int) -> int:
        recorder = Recorder(seconds=0.005)

        async def work() -> None:
            while anyio.current_time() < end:
                await committer.submit(1)

        end = anyio.current_time() + 0.3
        async with running(recorder) as committer, anyio.create_task_group() as tasks:
            for _ in range(waiters):
                tasks.start_soon(work)
        return len(recorder.taken)

    assert await through(64) > 20 * await through(1)


async def test_failure_fails_all_waiters_of_the_batch_and_everything_after() -> None:
    """One failed commit fails its whole batch, what is queued behind it, and every later submit; nobody hangs."""
    recorder = Recorder(seconds=0.02)
    recorder.fail_at = 3
    failed: list[int] = []

    async def submit(n: int) -> None:
        try:
            await committer.submit(n)
        except OSError:
            failed.append(n)

    with anyio.fail_after(5):
        async with running(recorder) as committer, anyio.create_task_group() as tasks:
            tasks.start_soon(submit, 1)
            await anyio.sleep(0.005)
            for n in (2, 3, 4):
                tasks.start_soon(submit, n)
            await anyio.sleep(0.025)
            tasks.start_soon(submit, 5)
            await anyio.sleep(0.05)
            with pytest.raises(OSError, match="no space"):
                await committer.submit(6)
    assert sorted(failed) == [2, 3, 4, 5]
    assert recorder.taken == [1, 2, 3, 4]


async def test_a_result_too_few_fails_its_waiters() -> None:
    """A commit function that answers with too few results is an error for all, not a hang for some."""
    with anyio.fail_after(5), pytest.raises(ExceptionGroup):
        async with running(lambda batch: []) as committer, anyio.create_task_group() as tasks:
            tasks.start_soon(committer.submit, 1)


async def test_a_cancelled_waiter_does_not_lose_its_operation() -> None:
    """An operation whose submitter is cancelled while it is queued is committed all the same."""
    recorder = Recorder(seconds=0.03)
    async with running(recorder) as committer, anyio.create_task_group() as tasks:
        tasks.start_soon(committer.submit, 1)
        await anyio.sleep(0.01)
        with anyio.move_on_after(0.005) as scope:
            await committer.submit(2)
        assert scope.cancelled_caught
    assert recorder.taken == [1, 2]


async def test_cancelling_everything_still_commits_what_is_owed() -> None:
    """When the whole run is cancelled, a shielded submitter still gets its commit before the committer ends."""
    recorder = Recorder(seconds=0.02)
    results: list[int] = []
    with anyio.move_on_after(0.01):
        async with running(recorder) as committer:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    results.append(await committer.submit(7))
    assert results == [14]


async def test_what_the_body_raises_is_not_wrapped() -> None:
    """An error of the body leaves ``running`` as itself, with its cause, not inside a group."""
    with pytest.raises(KeyError) as caught:
        async with running(Recorder()):
            raise KeyError("body") from OSError("cause")
    assert isinstance(caught.value.__cause__, OSError)


async def test_closing_drains_what_is_queued_and_refuses_more() -> None:
    """After close, what was queued is committed and a new submit is refused."""
    recorder = Recorder(seconds=0.02)
    async with running(recorder) as committer, anyio.create_task_group() as tasks:
        for n in range(3):
            tasks.start_soon(committer.submit, n)
        await anyio.sleep(0.005)
        committer.close()
        with pytest.raises(CommitterClosed):
            await committer.submit(9)
    assert recorder.taken == [0, 1, 2]


async def test_a_commit_that_hangs_is_given_up_after_its_deadline() -> None:
    """A disk that never answers fails the waiters after the deadline instead of hanging the run."""
    release = threading.Event()

    def hang(batch: Sequence[int]) -> list[int]:
        release.wait(10)
        return list(batch)

    with anyio.fail_after(5):
        async with running(hang, deadline_seconds=0.05) as committer:
            with pytest.raises(CommitTimeout):
                await committer.submit(1)
    release.set()


async def test_batches_are_bounded() -> None:
    """No batch is larger than the limit."""
    recorder = Recorder()
    async with running(recorder, batch_limit=10) as committer, anyio.create_task_group() as tasks:
        for n in range(95):
            tasks.start_soon(committer.submit, n)
    assert max(map(len, recorder.batches)) <= 10
    assert recorder.taken == list(range(95))
