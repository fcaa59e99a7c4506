"""Whoever has a turn of some keys has them alone, and nobody waits for ever."""

from __future__ import annotations

import asyncio

from p2pstore.holding.turns import Turns

WAIT = 30.0


async def test_one_task_at_a_time_has_a_key_and_others_do_not_wait_for_it() -> None:
    turns, log = Turns(), list[str]()
    go_on = asyncio.Event()

    async def take(name: str, keys: str, *, until: asyncio.Event | None = None) -> None:
        async with turns.of(keys):
            log.append(f"{name} in")
            if until is not None:
                await until.wait()
            log.append(f"{name} out")

    first = asyncio.create_task(take("first", "ab", until=go_on))
    await asyncio.sleep(0)
    second = asyncio.create_task(take("second", "bc"))
    await asyncio.wait_for(take("third", "c"), WAIT)
    assert log == ["first in", "third in", "third out"]
    go_on.set()
    await asyncio.wait_for(asyncio.gather(first, second), WAIT)
    assert log[3:] == ["first out", "second in", "second out"]


async def test_keys_are_taken_together_so_that_nobody_waits_in_a_circle() -> None:
    turns = Turns()

    async def take(keys: str) -> None:
        async with turns.of(keys):
            await asyncio.sleep(0)

    await asyncio.wait_for(asyncio.gather(*(take(keys) for keys in ("ab", "bc", "ca") * 20)), WAIT)


async def test_a_waiting_task_that_is_cancelled_takes_nothing() -> None:
    turns = Turns()
    async with turns.of("a"):
        waiting = asyncio.create_task(turns.of("ab").__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        async with turns.of("b"):
            pass
    async with turns.of("ab"):
        pass
