"""Others end a request's wait for an instance, and only that."""

from __future__ import annotations

import asyncio

import pytest

from p2pstore.serving.events import Kind, Lost
from p2pstore.serving.proxy.fleet import Member, Place
from p2pstore.serving.proxy.health import Health
from p2pstore.serving.proxy.waits import Waits

MEMBER = Member(Place("h", 1), Kind.DECODE, Health(0.0))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def waiting(made: list[Waits], clock: Clock, then: asyncio.Event) -> str:
    """A request that waits for an instance, and afterwards for something else."""
    waits = Waits(clock)
    made.append(waits)
    try:
        waits.on(MEMBER)
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        ours, member = waits.ended()
        assert member is MEMBER
        if not ours:
            return "its client left"
    await then.wait()
    return "goes on"


@pytest.mark.parametrize("how", ["moved", "ends", "silent", "left"])
async def test_a_wait_ends_for_each_who_may_end_it(how: str) -> None:
    made: list[Waits] = []
    clock, then = Clock(), asyncio.Event()
    task = asyncio.create_task(waiting(made, clock, then))
    await asyncio.sleep(0)
    (waits,) = made
    if how == "moved":
        waits.moved(Lost(1))
    elif how == "ends":
        waits.end()
    elif how == "silent":
        clock.now = 9.9
        assert waits.look(clock.now, 10.0)
        await asyncio.sleep(0)
        assert not task.done()
        clock.now = 10.0
        waits.look(clock.now, 10.0)
    else:
        task.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    # It waits for no instance any more: nobody cancels what it does instead.
    waits.end()
    assert not waits.look(1e9, 10.0)
    then.set()
    assert await task == ("its client left" if how == "left" else "goes on")


async def test_who_is_to_go_elsewhere_does_not_begin_to_wait() -> None:
    for told in (lambda waits: waits.moved(Lost(1)), lambda waits: waits.end()):
        waits = Waits(Clock())
        told(waits)
        with pytest.raises(asyncio.CancelledError):
            waits.on(MEMBER)
        assert waits.ended() == (True, None)
    waits = Waits(Clock())
    waits.on(MEMBER)
    waits.over()
    waits.moved(Lost(1))
    await asyncio.sleep(0)  # here it would be cancelled
    assert waits.fate == Lost(1)
