"""On a real master, with its metrics port."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pstore.kv.client.store import Store
from p2pstore.serving.events import Removed, Stored
from p2pstore.serving.knowledge.pool_blocks import PoolBlocks
from p2pstore.serving.knowledge.pool_feed import PoolFeed
from tests.cli.store_processes import Process

FOREVER = 60


def key(byte: int) -> str:
    return f"w1@model@{bytes([byte] * 32).hex()}"


async def test_what_comes_and_goes_is_told_and_a_master_that_is_gone_has_nothing(tmp_path: Path) -> None:
    known = {b"\x01" * 32: "one", b"\x02" * 32: "two"}
    heard: list[Stored | Removed] = []
    more = asyncio.Event()

    def told(events: list[Stored | Removed]) -> None:
        heard.extend(events)
        more.set()

    async def next_events() -> list[Stored | Removed]:
        await asyncio.wait_for(more.wait(), FOREVER)
        more.clear()
        found = list(heard)
        heard.clear()
        return found

    with contextlib.ExitStack() as owned:
        variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
        master = Process(variables, tmp_path, "master", "--listen", ":0", "--metrics", ":0")
        owned.callback(master.end)
        store = owned.enter_context(Store(master.told["address"], segment_size=16 << 20))
        store.put(key(1), b"value")
        store.put("other", b"value")
        feed = PoolFeed(master.told["metrics"], PoolBlocks("store", known.get), told, prefix="w1", every=0.05)
        task = asyncio.create_task(feed.run())
        assert await next_events() == [Stored("store", ["one"])]
        store.put(key(2), b"value")
        assert await next_events() == [Stored("store", ["two"])]
        store.remove(key(1), force=True)
        assert await next_events() == [Removed("store", ["one"])]
        master.end()
        assert await next_events() == [Removed("store", ["two"])]
        assert feed.why_not
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_it_runs_again_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Stored | Removed] = []
    answers: list[list[object]] = [[7, {"key": key(1)}], [{"key": key(1)}], []]

    def keys(*_: object) -> Iterator[Any]:
        return iter(answers.pop(0))

    def told(events: list[Stored | Removed]) -> None:
        heard.extend(events)
        raise RuntimeError("a bug")

    feed = PoolFeed("127.0.0.1:1", PoolBlocks("store", {b"\x01" * 32: "one"}.get), told, every=0.01)
    monkeypatch.setattr(feed._client, "keys", keys)
    for said in (Stored("store", ["one"]), Removed("store", ["one"])):
        with pytest.raises(RuntimeError, match="a bug"):
            await asyncio.wait_for(feed.run(), FOREVER)
        assert heard.pop() == said
