"""What only the memory store has: a clock that tests drive, and handles that share one server. The rest: contract."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.metadata.store import Changed, Put, Removed, Snapshot
from tests.clocks import Clock
from tests.p2pstore.metadata.waiting import WAIT, following


async def test_a_lease_runs_out_by_the_clock_alone() -> None:
    clock = Clock()
    store = MemoryStore(MemoryServer(clock))
    lease = await store.grant(10)
    await store.commit([Put("a", b"", lease)])
    clock.now += 9.5
    assert await store.time_left(lease) == 1
    assert await store.get("a") is not None
    assert await store.keep_alive(lease) == 10
    clock.now += 9.9
    assert await store.get("a") is not None
    clock.now += 0.1
    assert await store.get("a") is None
    assert await store.keep_alive(lease) == 0


async def test_a_waiting_watch_hears_of_a_lease_that_ran_out() -> None:
    clock = Clock()
    server = MemoryServer(clock)
    store = MemoryStore(server)
    lease = await store.grant(10)
    revision = await store.commit([Put("w/a", b"", lease)])
    assert revision is not None
    async with aclosing(store.watch("w/")) as events:
        assert isinstance(await following(events), Snapshot)
        clock.now += 10
        assert await following(events) == Removed("w/a", revision + 1)


async def test_handles_by_one_name_share_a_server_and_close_alone() -> None:
    one, two, other = MemoryStore(name="shared-test"), MemoryStore(name="shared-test"), MemoryStore()
    assert one.url == two.url == "memory://shared-test"
    assert other.url != one.url
    async with aclosing(two.watch("")) as events:
        await following(events)
        await one.commit([Put("a", b"1")])
        assert isinstance(await following(events), Changed)
    await one.close()
    assert await two.get("a") is not None
    assert await other.get("a") is None
    await two.close()


async def test_a_watch_in_another_thread_hears_of_a_write_here() -> None:
    server = MemoryServer()
    here = MemoryStore(server)
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def listen() -> str:
        async for event in MemoryStore(server).watch("a"):
            if isinstance(event, Changed):
                return event.item.key
            loop.call_soon_threadsafe(ready.set)
        return ""

    task = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(listen())))
    await asyncio.wait_for(ready.wait(), WAIT)
    await here.commit([Put("a", b"")])
    assert await asyncio.wait_for(task, WAIT) == "a"


async def test_an_unread_watch_costs_no_one_after_its_end() -> None:
    server = MemoryServer()
    store = MemoryStore(server)
    async with aclosing(store.watch("")) as events:
        await following(events)
        assert len(server._watchers) == 1
    assert not server._watchers
