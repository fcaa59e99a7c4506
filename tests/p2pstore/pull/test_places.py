"""So many places and no more; who waits is served at random, or first where another made room; none is ever lost."""

from __future__ import annotations

import asyncio
import contextlib

from hypothesis import given
from hypothesis import strategies as st

from p2pstore.pull.places import Placed, Places

WAIT = 60.0


async def settle() -> None:
    """Let every task go on as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_comes_when_all_are_taken_waits() -> None:
    places = Places(2)
    assert not places.full
    await places.take()
    await places.take()
    assert places.full
    waits = asyncio.create_task(places.take())
    await settle()
    assert not waits.done()
    places.give()
    await asyncio.wait_for(waits, WAIT)
    assert places.full
    places.give()
    places.give()
    assert not places.full


async def test_those_for_whom_room_was_made_come_first_in_their_order_and_the_others_at_random() -> None:
    orders = set()
    for _ in range(20):
        places, served = Places(1), list[str]()

        async def waits(name: str, *, first: bool, places: Places = places, served: list[str] = served) -> None:
            await places.take(first=first)
            served.append(name)
            places.give()

        await places.take()
        others = [asyncio.create_task(waits(name, first=False)) for name in "abcdefgh"]
        firsts = [asyncio.create_task(waits(name, first=True)) for name in "xy"]
        await settle()
        places.give()
        await asyncio.wait_for(asyncio.gather(*others, *firsts), WAIT)
        assert served[:2] == ["x", "y"]
        assert sorted(served[2:]) == list("abcdefgh")
        orders.add(tuple(served))
        assert not places.full
    assert len(orders) > 1


@given(st.integers(1, 3), st.lists(st.sampled_from(["take", "first", "give", "cancel"]), max_size=40))
def test_no_place_is_lost_and_none_is_given_twice(most: int, story: list[str]) -> None:
    async def play() -> None:
        places = Places(most)
        tasks: list[asyncio.Task[None]] = []
        held = 0
        for step in story:
            if step in {"take", "first"}:
                tasks.append(asyncio.create_task(places.take(first=step == "first")))
            elif step == "give" and held:
                places.give()
                held -= 1
            elif step == "cancel" and tasks:
                tasks.pop().cancel()  # perhaps in the moment in which it is served
            if step != "give":  # else the next step comes before who was served has heard of it
                await settle()
                held += sum(task.done() for task in tasks)
                tasks = [task for task in tasks if not task.done()]
            assert held <= most
        await settle()
        held += sum(task.done() for task in tasks)
        waiting = [task for task in tasks if not task.done()]
        assert held == most or not waiting
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for _ in range(held):
            places.give()
        for _ in range(most):
            await asyncio.wait_for(places.take(), WAIT)
        assert places.full
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(places.take(), 0.001)
            raise AssertionError("one more than there are")

    asyncio.run(play())


async def test_who_may_give_its_place_up() -> None:
    placed = Placed("a")
    assert placed.may_go({"b"}, near=True)
    assert placed.may_go({"b"}, near=False), "as long as nobody knows where it is"
    placed.near = True
    assert placed.may_go((), near=True)
    assert not placed.may_go((), near=False)
    assert not placed.may_go({"a"}, near=True)
    placed.kicked.set()
    assert not placed.may_go((), near=True), "it has given it up already"
