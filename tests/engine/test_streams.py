"""Streams between rooms: bounded, ended, cut off; nothing is lost and nobody waits for ever."""

import asyncio
import itertools
import random

import anyio
import anyio.lowlevel
import pytest
from anyio import BrokenResourceError, ClosedResourceError, WouldBlock
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.streams import Receiver, Sender, Stream


async def taken_by(receiver: Receiver[int], into: list[int]) -> None:
    """Take all there is."""
    async with receiver:
        async for item in receiver:
            into.append(item)
            await anyio.lowlevel.checkpoint()


async def put_by(sender: Sender[int], items: range) -> None:
    """Put these and close."""
    async with sender:
        for item in items:
            await sender.send(item)


@given(capacity=st.integers(1, 9), senders=st.integers(1, 5), receivers=st.integers(1, 5), each=st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_every_item_arrives_once(capacity: int, senders: int, receivers: int, each: int) -> None:
    """Whatever the numbers; of one sender's items the order is kept where one receiver takes them."""

    async def run() -> list[list[int]]:
        sender, receiver = Stream[int](capacity).ends()
        taken: list[list[int]] = [[] for _ in range(receivers)]
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks, sender, receiver:
                for into in taken:
                    tasks.start_soon(taken_by, receiver.clone(), into)
                for number in range(senders):
                    tasks.start_soon(put_by, sender.clone(), range(number * each, (number + 1) * each))
        return taken

    taken = asyncio.run(run())
    assert sorted(itertools.chain(*taken)) == list(range(senders * each))
    if senders == 1:
        assert all(into == sorted(into) for into in taken)


async def test_a_full_stream_wakes_its_senders_when_half_of_it_is_free() -> None:
    sender, receiver = Stream[int](4).ends()
    async with receiver, anyio.create_task_group() as tasks:
        tasks.start_soon(put_by, sender, range(7))
        await anyio.wait_all_tasks_blocked()
        assert receiver.fill == (4, 1, 1, 1, 0)
        assert receiver.receive_nowait() == 0
        await anyio.wait_all_tasks_blocked()
        assert receiver.fill == (3, 1, 1, 1, 0)
        assert receiver.receive_nowait() == 1
        await anyio.wait_all_tasks_blocked()
        assert receiver.fill == (4, 1, 1, 1, 0)
        assert [receiver.receive_nowait() for _ in range(4)] == [2, 3, 4, 5]
        await anyio.wait_all_tasks_blocked()
        assert receiver.receive_nowait() == 6


async def test_who_is_cancelled_while_being_woken_passes_it_on() -> None:
    """The item was put for one that is cancelled before it runs; another that waits must hear of it."""
    sender, receiver = Stream[int](4).ends()
    async with sender, receiver, asyncio.timeout(5):
        first = asyncio.create_task(anext(receiver))
        await anyio.wait_all_tasks_blocked()
        second = asyncio.create_task(anext(receiver))
        await anyio.wait_all_tasks_blocked()
        sender.send_nowait(1)
        first.cancel()
        assert await second == 1
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_who_waits_for_room_has_its_place_kept() -> None:
    """Nobody who comes later is quicker, also before the one that was woken has gone on."""
    sender, receiver = Stream[str](2).ends()
    sender.send_nowait("a")
    sender.send_nowait("b")
    async with sender, receiver, asyncio.timeout(5):
        waiting = asyncio.create_task(sender.send("c"))
        await anyio.wait_all_tasks_blocked()
        assert receiver.receive_nowait() == "a"
        with pytest.raises(WouldBlock):
            sender.send_nowait("d")
        await waiting
        assert [receiver.receive_nowait() for _ in range(2)] == ["b", "c"]


async def test_a_sender_that_is_cancelled_while_being_woken_passes_its_place_on() -> None:
    sender, receiver = Stream[str](1).ends()
    sender.send_nowait("a")
    async with sender, receiver, asyncio.timeout(5):
        first = asyncio.create_task(sender.send("b"))
        await anyio.wait_all_tasks_blocked()
        second = asyncio.create_task(sender.send("c"))
        await anyio.wait_all_tasks_blocked()
        assert receiver.receive_nowait() == "a"
        first.cancel()
        await second
        assert receiver.receive_nowait() == "c"
        assert receiver.fill == (0, 1, 0, 1, 0)
        sender.send_nowait("d")
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_no_more_senders_are_woken_than_there_is_room_for() -> None:
    """Also where takes follow one another before the woken ones go on."""
    sender, receiver = Stream[int](8).ends()
    async with sender, receiver:
        waiting = [asyncio.create_task(sender.send(number)) for number in range(108)]
        await anyio.wait_all_tasks_blocked()
        assert receiver.fill == (8, 1, 100, 1, 0)
        assert [receiver.receive_nowait() for _ in range(6)] == [0, 1, 2, 3, 4, 5]
        assert receiver.fill == (2, 1, 94, 1, 0)
        await anyio.wait_all_tasks_blocked()
        assert receiver.fill == (8, 1, 94, 1, 0)
        for number in range(6, 108):
            assert await anext(receiver) == number
        await asyncio.gather(*waiting)


async def test_who_is_cancelled_while_waiting_leaves_no_trace() -> None:
    sender, receiver = Stream[int](1).ends()
    async with sender, receiver:
        with anyio.move_on_after(0.01):
            await anext(receiver)
        sender.send_nowait(1)
        with anyio.move_on_after(0.01):
            await sender.send(2)
        assert receiver.fill == (1, 1, 0, 1, 0)
        assert receiver.receive_nowait() == 1
        with pytest.raises(WouldBlock):
            receiver.receive_nowait()


async def test_the_ends_tell_each_other_of_the_end() -> None:
    sender, receiver = Stream[int](1).ends()
    another = sender.clone()
    sender.send_nowait(1)
    with pytest.raises(WouldBlock):
        another.send_nowait(2)
    failures: list[BaseException] = []

    async def send() -> None:
        try:
            await another.send(2)
        except BrokenResourceError as error:
            failures.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        receiver.close()
        receiver.close()
    assert failures
    another.close()
    with pytest.raises(ClosedResourceError):
        await another.send(3)


async def test_waiting_receivers_hear_of_the_end() -> None:
    sender, receiver = Stream[int](1).ends()
    ended: list[list[int]] = [[], []]
    with anyio.fail_after(5):
        async with receiver, anyio.create_task_group() as tasks:
            for into in ended:
                tasks.start_soon(taken_by, receiver.clone(), into)
            await anyio.wait_all_tasks_blocked()
            sender.close()
    assert ended == [[], []]


async def test_what_is_paid_for_is_put_although_its_sender_is_cancelled() -> None:
    sender, receiver = Stream[int](1).ends()
    keeping = sender.keeping()
    sender.send_nowait(1)
    taken: list[int] = []

    async def pay() -> None:
        async with keeping:
            await keeping.send(2)

    async with sender, anyio.create_task_group() as outer:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pay)
            await anyio.wait_all_tasks_blocked()
            outer.start_soon(taken_by, receiver, taken)
            tasks.cancel_scope.cancel()
        sender.close()
    assert taken == [1, 2]


@pytest.mark.parametrize("seed", range(40))
async def test_whoever_is_cut_off_loses_nothing(seed: int) -> None:
    """Senders and receivers that give up at any moment, and receivers that leave: each item put is taken once."""
    chance = random.Random(seed)
    sender, receiver = Stream[int](chance.randint(1, 5)).ends()
    put: list[int] = []
    taken: list[int] = []
    numbers = itertools.count()

    async def send(end: Sender[int]) -> None:
        async with end:
            for _ in range(chance.randint(0, 30)):
                item = next(numbers)
                with anyio.move_on_after(chance.choice([0, 0.0001, 5])):
                    await end.send(item)
                    put.append(item)
                await anyio.lowlevel.checkpoint()

    async def take(end: Receiver[int], leaves_after_seconds: float) -> None:
        async with end:
            with anyio.move_on_after(leaves_after_seconds):
                while True:
                    try:
                        with anyio.move_on_after(chance.choice([0, 0.0001, 5])):
                            taken.append(await anext(end))
                    except StopAsyncIteration:
                        return
                    await anyio.lowlevel.checkpoint()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks, sender, receiver:
            for end in (sender.clone(), sender.keeping(), sender.clone()):
                tasks.start_soon(send, end)
            for seconds in (chance.random() * 0.001, 10, 10):
                tasks.start_soon(take, receiver.clone(), seconds)
            await anyio.lowlevel.checkpoint()
    assert len(taken) == len(set(taken))
    assert set(put) <= set(taken)
