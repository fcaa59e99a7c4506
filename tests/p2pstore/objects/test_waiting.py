"""What was begun is waited for, however often the waiting task is cancelled."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from p2pstore.objects.waiting import in_thread, telling, to_its_end, together

WAIT = 60.0


async def test_what_comes_of_it() -> None:
    assert await to_its_end(asyncio.sleep(0, "done")) == "done"


async def test_its_error_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("it failed")

    with pytest.raises(ValueError, match="it failed"):
        await to_its_end(fail())


async def test_any_number_of_cancels_wait_for_its_end() -> None:
    go_on, ended = threading.Event(), threading.Event()

    def work() -> None:
        assert go_on.wait(WAIT)
        ended.set()

    waiting = asyncio.create_task(to_its_end(asyncio.to_thread(work)))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    done, _ = await asyncio.wait({waiting}, timeout=0.1)
    assert not done
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()


async def test_an_error_says_more_than_the_cancel() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def fail() -> None:
        begun.set()
        await go_on.wait()
        raise ValueError("it failed")

    waiting = asyncio.create_task(to_its_end(fail()))
    await asyncio.wait_for(begun.wait(), WAIT)
    waiting.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(ValueError, match="it failed"):
        await waiting


async def test_a_thread_is_told_of_a_cancel_and_waited_for() -> None:
    cancelled, begun = threading.Event(), threading.Event()
    left: list[bool] = []

    def work(what: str) -> str:
        begun.set()
        left.append(cancelled.wait(WAIT))
        return what

    waiting = asyncio.create_task(in_thread(cancelled, work, "done"))
    assert await asyncio.to_thread(begun.wait, WAIT)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert left == [True]
    assert await in_thread(cancelled, work, "done") == "done"


async def test_who_waits_hears_how_long_it_is() -> None:
    told: list[float] = []
    done = asyncio.Event()

    def tell(seconds: float) -> None:
        told.append(seconds)
        if len(told) == 3:
            done.set()

    assert await asyncio.wait_for(telling(done.wait(), tell, first=0.02, again=0.01), WAIT)
    assert len(told) == 3
    assert 0.02 <= told[0] < told[1] < told[2]
    assert await telling(asyncio.sleep(0, "at once"), tell, first=WAIT, again=WAIT) == "at once"
    assert len(told) == 3


async def test_a_cancel_goes_to_what_is_waited_for() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(WAIT)
        finally:
            ended.set()

    waiting = asyncio.create_task(telling(work(), lambda _: None, first=WAIT, again=WAIT))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, WAIT)
    assert ended.is_set()


async def test_several_together_few_at_a_time() -> None:
    running: list[int] = []
    most = 0

    async def work(number: int) -> int:
        nonlocal most
        running.append(number)
        most = max(most, len(running))
        await asyncio.sleep(0)
        running.remove(number)
        return number

    assert await together([partial(work, n) for n in range(7)], at_once=3, name="x") == list(range(7))
    assert most == 3
    assert await together([], at_once=1, name="x") == []


async def test_when_one_of_them_fails_the_others_have_ended() -> None:
    running = 0

    async def waits() -> None:
        nonlocal running
        running += 1
        try:
            await asyncio.Event().wait()
        finally:
            running -= 1

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("it")

    with pytest.raises(ValueError, match="it"):
        await together([waits, fails, waits, waits], at_once=3, name="x")
    assert not running
