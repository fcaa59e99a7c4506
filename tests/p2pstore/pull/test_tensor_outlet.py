"""A queue of bounded bytes between a get and whoever takes tensors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from engine.net.loop_thread import LoopThread
from p2pstore.errors import MooncakeError, UsageError
from p2pstore.pull import tensor_outlet
from p2pstore.pull.tensor_outlet import Item, Outlet

PATIENCE = 60.0


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    made = LoopThread("test")
    made.start()
    yield made
    made.stop(PATIENCE)


def on(loop: LoopThread, work: Awaitable[Any]) -> Any:
    async def done() -> Any:
        return await work

    return loop.call(done(), PATIENCE)


async def has_room(outlet: Outlet, length: int) -> bool:
    """Whether there is, without waiting for anybody."""
    waiting = asyncio.ensure_future(outlet.room(length))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    found = waiting.done()
    waiting.cancel()
    return found


async def attached(outlet: Outlet) -> None:
    outlet.attach()


def test_what_is_taken_makes_room_when_the_next_is_asked_for(loop: LoopThread) -> None:
    outlet = Outlet(10)
    on(loop, attached(outlet))
    on(loop, outlet.room(6))
    outlet.put(Item("a", b"a", 6))
    items = outlet.items(lambda: True)
    assert next(items) == ("a", b"a")
    assert not on(loop, has_room(outlet, 5))
    assert on(loop, has_room(outlet, 4))
    outlet.end(None)
    assert list(items) == []
    assert on(loop, has_room(outlet, 5))


def test_one_that_is_larger_has_room_when_nothing_else_is_out(loop: LoopThread) -> None:
    outlet = Outlet(10)
    on(loop, attached(outlet))
    on(loop, outlet.room(100))
    assert on(loop, has_room(outlet, 100))  # that of the first is still coming: nobody could make room


def test_a_fault_comes_behind_what_came_before_it() -> None:
    outlet = Outlet(10)
    outlet.put(Item("a", b"a", 6))
    outlet.end(UsageError(detail="no"))
    items = outlet.items(lambda: True)
    assert next(items) == ("a", b"a")
    with pytest.raises(UsageError, match="no"):
        next(items)


def test_nobody_waits_for_a_thread_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_outlet, "LOOK_SECONDS", 0.01)
    outlet = Outlet(10)
    lives = iter([True, True, False])
    with pytest.raises(MooncakeError, match="has ended without a word"):
        next(outlet.items(lambda: next(lives)))


def test_closing_ends_the_get(loop: LoopThread) -> None:
    outlet = Outlet(10)

    async def get() -> None:
        outlet.attach()
        await outlet.room(1)
        outlet.put(Item("a", b"a", 1))
        outlet.close()
        await outlet.room(100)

    with pytest.raises((CancelledError, asyncio.CancelledError)):
        loop.call(get(), PATIENCE)


def test_a_get_that_begins_after_the_close_ends_at_once(loop: LoopThread) -> None:
    outlet = Outlet(10)
    outlet.close()
    with pytest.raises((CancelledError, asyncio.CancelledError)):
        on(loop, attached(outlet))
