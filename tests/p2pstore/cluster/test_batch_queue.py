"""What is put while the task does not run, it takes at once; nothing is lost to a wait that was given up."""

from __future__ import annotations

import asyncio

import pytest

from p2pstore.cluster.batch_queue import BatchQueue


async def test_all_that_came_is_taken_at_once_and_in_order() -> None:
    queue: BatchQueue[int] = BatchQueue(8)
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    for number in range(3):
        queue.put(number)
    assert await asyncio.wait_for(taking, 30) == [0, 1, 2]
    queue.put(3)
    assert await asyncio.wait_for(queue.take(), 30) == [3]
    assert not len(queue)


async def test_a_wait_that_is_given_up_takes_nothing() -> None:
    queue: BatchQueue[int] = BatchQueue(8)
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    queue.put(1)
    assert await asyncio.wait_for(queue.take(), 30) == [1]


async def test_what_is_drained_before_the_task_runs_does_not_end_its_wait() -> None:
    queue: BatchQueue[int] = BatchQueue(8)
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.put(1)
    assert queue.drain() == [1]
    assert queue.drain() == []
    for _ in range(5):
        await asyncio.sleep(0)
    assert not taking.done()
    queue.put(2)
    assert await asyncio.wait_for(taking, 30) == [2]


async def test_no_more_fits_than_was_said() -> None:
    queue: BatchQueue[int] = BatchQueue(2)
    had_room = []
    for number in (1, 2):
        had_room.append(not queue.full)
        queue.put(number)
    assert had_room == [True, True]
    assert queue.full
    with pytest.raises(asyncio.QueueFull):
        queue.put(3)
    assert await queue.take() == [1, 2]
    queue.put(4)
    assert len(queue) == 1
