from __future__ import annotations

import asyncio
from typing import Any

import pytest

from p2pstore.metrics.counts import Operation
from p2pstore.pull.running import MAX_SHOWN, WAITING, Gets
from tests.clocks import Clock

WAIT = 60.0


async def test_how_far_a_get_is() -> None:
    clock, heard = Clock(), []
    gets = Gets(Operation(), clock=clock)
    async with gets.one("n", "/d", heard.append) as tell:
        assert gets.to_json()[0]["percent"] is None
        step = {"event": "progress", "step": "hashing", "unit": "files", "done": 1, "total": 3, "peers": 0}
        tell(step)
        (shown,) = gets.to_json()
        assert (shown["step"], shown["unit"], shown["percent"]) == ("hashing", "files", 33.3)
        tell({"event": "note", "text": "by the way"})
        clock.now += 2
        tell({"event": "progress", "done": 50, "total": 100, "peers": 4})
        assert gets.to_json() == [
            {
                "name": "n",
                "dest": "/d",
                "step": "pulling",
                "unit": "B",
                "done": 50,
                "total": 100,
                "percent": 50.0,
                "peers": 4,
                "seconds": 2,
            }
        ]
    assert gets.to_json() == []
    assert [event["event"] for event in heard] == ["progress", "note", "progress"]


async def test_who_waits_is_there_too_and_a_cancel_is_counted() -> None:
    counted = Operation()
    gets = Gets(counted, most=1)
    told: list[dict[str, Any]] = []
    waits = asyncio.Event()

    def hear(event: dict[str, Any]) -> None:
        told.append(event)
        waits.set()

    async def second() -> None:
        async with gets.one("second", "-", hear):
            pytest.fail("it has a turn")

    async with gets.one("first", "-", told.append):
        task = asyncio.create_task(second())
        await asyncio.wait_for(waits.wait(), WAIT)
        assert [(get["name"], get["step"]) for get in gets.to_json()] == [("first", "beginning"), ("second", WAITING)]
        assert (gets.running, gets.waiting) == (1, 1)
        task.cancel()
        await asyncio.wait({task})
        assert (gets.running, gets.waiting, len(gets.to_json())) == (1, 0, 1)
    assert told == [
        {"event": "note", "text": "the get of 'second' waits for its turn, as this node has many: it is the next"}
    ]
    assert (counted.started, counted.finished["ok",], counted.finished["cancelled",]) == (2, 1, 1)


async def test_the_list_is_bounded() -> None:
    gets = Gets(Operation(), most=1)
    ready = asyncio.Event()

    async def wait(number: int) -> None:
        async with gets.one(str(number), "-", lambda _: ready.set() if gets.waiting > MAX_SHOWN else None):
            pass

    async with gets.one("first", "-", lambda _: None):
        tasks = [asyncio.create_task(wait(number)) for number in range(MAX_SHOWN + 1)]
        await asyncio.wait_for(ready.wait(), WAIT)
        assert len(gets.to_json()) == MAX_SHOWN
        assert gets.to_json()[0]["name"] == "first"
    await asyncio.wait_for(asyncio.gather(*tasks), WAIT)
