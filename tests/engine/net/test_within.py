from __future__ import annotations

import asyncio

import pytest

from engine.net.within import within

WAIT = 60.0


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancel_that_comes_with_the_answer_is_kept(turns: int) -> None:
    """At each turn of the event loop from the answer on: whoever can still be cancelled is."""
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> int:
        return await answer

    async def waits() -> int:
        came = await within(work(), WAIT)
        await asyncio.sleep(0)
        return came

    task = asyncio.create_task(waits())
    for _ in range(3):
        await asyncio.sleep(0)
    answer.set_result(7)
    for _ in range(turns):
        await asyncio.sleep(0)
    if task.cancel():
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        assert turns > 1
        assert task.result() == 7


async def test_it_is_bounded() -> None:
    ended = asyncio.Event()

    async def for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(asyncio.TimeoutError):
        await within(for_ever(), 0.01)
    assert ended.is_set()


async def test_without_a_bound_it_takes_its_time() -> None:
    assert await within(asyncio.sleep(0.01, "slept"), None) == "slept"


async def test_what_the_work_raises_is_raised() -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await within(fails(), WAIT)
