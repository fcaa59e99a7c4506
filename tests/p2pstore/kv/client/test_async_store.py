"""The pool for coroutines: every call of Store awaited, many at once, and memory that is given back."""

from __future__ import annotations

import asyncio
import copy
import inspect
import os
import threading
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from engine.errors import Closed, UsageError
from p2pstore.errors import ForkedProcess
from p2pstore.kv import AsyncStore, Store
from p2pstore.kv.client.async_store import CALLS
from p2pstore.kv.errors import KeyNotFound, MasterUnavailable
from tests.forking import in_child
from tests.p2pstore.kv.client.conftest import SEGMENT
from tests.ports import closed_port

WAIT = 60


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work, WAIT)

    asyncio.run(bounded())


def test_every_call_of_a_store_is_there() -> None:
    ours = {name for name in vars(AsyncStore) if not name.startswith("_")} - {"join"}
    theirs = {name for name in dir(Store) if not name.startswith("_")} - {"check"}
    assert ours == theirs
    for name in theirs:
        if callable(getattr(Store, name)):
            assert called(AsyncStore, name) == called(Store, name), name


def called(kind: type, name: str) -> str:
    """How one calls it: a class that shares the calls with others says of what they are called."""
    signature = inspect.signature(getattr(kind, name))
    itself, *rest = signature.parameters.values()
    return str(signature.replace(parameters=[itself.replace(annotation=itself.empty), *rest]))


def test_values_in_and_out(master: str) -> None:
    key = f"async-{os.getpid()}"

    async def work() -> None:
        async with AsyncStore(master, segment_size=SEGMENT) as store:
            assert await store.put(key, b"value")
            assert await store.put_parts(key + "p", [b"one", b"two"])
            assert await store.put_many({key + "1": b"1", key: b"other"}) == [True, False]
            assert await store.get(key) == b"value"
            assert await store.get_many([key + "p", "no " + key]) == [b"onetwo", None]
            room = bytearray(5)
            assert await store.get_into(key, room) == 5
            assert await store.get_many_into({key + "1": bytearray(1)}) == [1]
            assert room == b"value"
            assert await store.get_range(key, 1, 2) == b"al"
            assert await store.put_tensor(key + "t", np.arange(3))
            assert (await store.get_array(key + "t") == np.arange(3)).all()
            assert await store.exists(key)
            assert await store.exists_many([key, "no " + key]) == [True, False]
            assert await store.size(key) == 5
            assert len((await store.replicas(key)).replicas) == 1
            await store.remove(key, force=True)
            assert await store.remove_matching(f"^{key}[1p]$", force=True) == 2
            with pytest.raises(KeyNotFound):
                await store.get(key)
            assert store.name
            assert not store.why_not
            assert not store.dead
            assert not store.failures

    run(work())


def test_many_calls_are_under_way_at_once_and_the_loop_runs_on(master: str) -> None:
    key = f"async-many-{os.getpid()}"
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    async def work() -> None:
        ticking = asyncio.create_task(tick())
        async with AsyncStore(master, segment_size=SEGMENT) as store:
            names = [f"{key}-{number}" for number in range(60)]
            assert all(await asyncio.gather(*(store.put(name, name.encode()) for name in names)))
            found = await asyncio.gather(*(store.get(name) for name in names))
            assert found == [name.encode() for name in names]
        ticking.cancel()

    run(work())
    assert ticks > 100


def test_a_call_that_is_cancelled_has_ended_when_its_caller_goes_on(
    master: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    async def work() -> None:
        async with AsyncStore(master, segment_size=0) as store:

            def slow(key: str) -> bytes:
                began.set()
                assert go_on.wait(WAIT)
                ended.set()
                return key.encode()

            assert store._store is not None
            monkeypatch.setattr(store._store, "get", slow)
            getting = asyncio.create_task(store.get("k"))
            assert await asyncio.to_thread(began.wait, WAIT)
            getting.cancel()
            await asyncio.sleep(0.05)
            assert not getting.done(), "its thread may still write to the caller's memory"
            getting.cancel()
            await asyncio.sleep(0.05)
            assert not getting.done(), "nor by being cancelled twice"
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await getting
            assert ended.is_set()

    run(work())


def test_a_close_does_not_wait_behind_calls(master: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed, began = threading.Event(), threading.Semaphore(0)

    async def work() -> None:
        store = AsyncStore(master, segment_size=0)
        await store.join()
        assert store._store is not None
        close = store._store.close

        def get(key: str) -> bytes:
            began.release()
            assert closed.wait(WAIT)
            return key.encode()

        def closing() -> None:
            close()
            closed.set()

        monkeypatch.setattr(store._store, "get", get)
        monkeypatch.setattr(store._store, "close", closing)
        getting = [asyncio.create_task(store.get("k")) for _ in range(CALLS + 1)]
        for _ in range(CALLS):
            assert await asyncio.to_thread(began.acquire, timeout=WAIT)
        await store.close()
        assert closed.is_set()
        assert await asyncio.gather(*getting) == [b"k"] * (CALLS + 1)

    run(work())


def test_who_joins_at_once_joins_once(master: str) -> None:
    made: list[Store] = []

    async def work() -> None:
        store = AsyncStore(master, segment_size=0)

        def make() -> Store:
            made.append(Store(master, segment_size=0))
            return made[-1]

        store._make = make  # type: ignore[assignment]
        await asyncio.gather(store.join(), store.join())
        assert not await store.exists("k")
        await store.close()

    run(work())
    assert len(made) == 1


def test_a_join_that_is_cancelled_leaves_no_client_behind(master: str) -> None:
    began, go_on = threading.Event(), threading.Event()
    made: list[Store] = []

    async def work() -> None:
        store = AsyncStore(master, segment_size=0)

        def make() -> Store:
            began.set()
            assert go_on.wait(WAIT)
            made.append(Store(master, segment_size=0))
            return made[-1]

        store._make = make  # type: ignore[assignment]
        joining = asyncio.create_task(store.join())
        assert await asyncio.to_thread(began.wait, WAIT)
        joining.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await joining
        (left,) = made
        with pytest.raises(Closed):
            left.check()
        await store.join()
        assert not await store.exists("k")
        await store.close()

    run(work())


def test_before_it_has_joined_and_after_its_end_it_says_so(master: str) -> None:
    async def work() -> None:
        store = AsyncStore(master, segment_size=0)
        with pytest.raises(Closed, match="not joined"):
            await store.get("k")
        await store.close()
        async with AsyncStore(master, segment_size=0) as store:
            pass
        with pytest.raises(Closed):
            await store.get("k")
        await store.close()

    run(work())


def test_errors_of_joining_are_those_of_a_store() -> None:
    async def work() -> None:
        with pytest.raises(MasterUnavailable):
            await AsyncStore(f"127.0.0.1:{closed_port()}", setup_timeout=0.1).join()
        with pytest.raises(UsageError, match="segment of 5 bytes"):
            async with AsyncStore("127.0.0.1:1", segment_size=5):
                pass

    run(work())


def test_it_belongs_to_its_process(master: str) -> None:
    async def work() -> None:
        async with AsyncStore(master, segment_size=0) as store:

            def child() -> str:
                async def get() -> str:
                    for call in (lambda: store.get("k"), store.join):
                        with pytest.raises(ForkedProcess):
                            await call()
                    await store.close()
                    return "refused"

                loop = asyncio.new_event_loop()
                asyncio.events._set_running_loop(None)
                return loop.run_until_complete(get())

            assert in_child(child) == "refused"
            with pytest.raises(UsageError, match="make one there"):
                copy.copy(store)

    run(work())
