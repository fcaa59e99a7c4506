"""Gets take turns in the order of their coming, whoever gives up; each knows its place."""

from __future__ import annotations

import asyncio

import pytest

from p2pstore.pull import turn as module
from p2pstore.pull.turn import GetQueue

WAIT = 60.0


class Gets:
    """Gets of a queue that has room for two; each runs until it is told to end."""

    def __init__(self) -> None:
        self.queue = GetQueue(2)
        self.began: list[int] = []
        self.told: dict[int, list[int]] = {}
        self.ends: dict[int, asyncio.Event] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def begin(self, number: int) -> None:
        self.ends[number] = asyncio.Event()
        self.tasks[number] = asyncio.create_task(self._get(number))
        await self.settle()

    async def _get(self, number: int) -> None:
        async with self.queue.turn(self.told.setdefault(number, []).append):
            self.began.append(number)
            await self.ends[number].wait()

    async def end(self, number: int) -> None:
        self.ends[number].set()
        await asyncio.wait_for(self.tasks[number], WAIT)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


async def test_they_wait_in_order_and_know_their_place() -> None:
    gets = Gets()
    for number in range(5):
        await gets.begin(number)
    assert gets.began == [0, 1]
    assert (gets.queue.running, gets.queue.waiting) == (2, 3)
    assert gets.told == {0: [], 1: [], 2: [0], 3: [1], 4: [2]}
    await gets.end(1)
    assert gets.began == [0, 1, 2]
    for number in (0, 2, 3, 4):
        await gets.end(number)
    assert gets.began == [0, 1, 2, 3, 4]
    assert (gets.queue.running, gets.queue.waiting) == (0, 0)


async def test_who_gives_up_makes_room() -> None:
    gets = Gets()
    for number in range(6):
        await gets.begin(number)
    gets.tasks[2].cancel()  # waits
    gets.tasks[0].cancel()  # runs
    await gets.settle()
    assert gets.began == [0, 1, 3]
    gets.ends[1].set()
    gets.ends[3].set()
    await gets.settle()
    gets.tasks[4].cancel()
    for number in (4, 5):
        gets.ends[number].set()
    await asyncio.wait(set(gets.tasks.values()), timeout=WAIT)
    assert (gets.queue.running, gets.queue.waiting) == (0, 0)


async def test_a_turn_that_comes_with_a_cancel_is_the_next_ones() -> None:
    gets = Gets()
    for number in range(4):
        await gets.begin(number)
    gets.ends[0].set()
    await asyncio.sleep(0)
    gets.tasks[2].cancel()
    await gets.settle()
    gets.ends[1].set()
    gets.ends[3].set()
    await asyncio.wait(set(gets.tasks.values()), timeout=WAIT)
    assert gets.began[:2] == [0, 1]
    assert 3 in gets.began
    assert (gets.queue.running, gets.queue.waiting) == (0, 0)


async def test_who_waits_long_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TELL_SECONDS", 0.01)
    gets = Gets()
    for number in range(4):
        await gets.begin(number)

    async def told() -> None:
        while len(gets.told[3]) < 3:  # noqa: ASYNC110 - nothing else tells of it
            await asyncio.sleep(0.01)

    await asyncio.wait_for(told(), WAIT)
    await gets.end(0)
    while gets.told[3][-1]:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.01)
    for number in (1, 2, 3):
        await gets.end(number)
