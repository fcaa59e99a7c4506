"""One object: what the cluster knows of it, and what its holders say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from p2pstore.cluster import records
from p2pstore.errors import (
    ObjectNotFound,
)
from p2pstore.metadata.store import Put
from tests.p2pstore.nodes import FILES, Start, get, register, root, start
from tests.p2pstore.two_versions import two

__all__ = ["root", "start", "two"]


async def test_a_foreign_object_record_harms_nobody(start: Start, root: Path) -> None:
    a = await start("a")
    await a.registry.store.commit([Put(records.object_key("x"), b"\xff"), Put(records.NODES + "x", b"[]")])
    await register(a, root)
    assert [o["name"] for o in (await a.listing("", limit=0, after=""))["objects"]] == ["n"]
    with pytest.raises(ObjectNotFound):
        await a.info("x")


async def test_holders_that_are_gone_or_silent(start: Start, root: Path, tmp_path: Path) -> None:
    a, b, c = [await start(name) for name in "abc"]
    await register(a, root)
    await get(b, tmp_path / "b")

    async def silent(*_: object) -> int:
        await asyncio.Event().wait()
        return 0

    c.parts.client.count = silent  # type: ignore[method-assign]
    shown = await c.info("n")
    assert [(r["node"], r["chunks"], r["reachable"]) for r in shown["replicas"]] == [("a", 6, False), ("b", 6, False)]
    assert {file["path"] for file in shown["files"]} == set(FILES)
    assert (shown["here"], shown["banned"]) == ([], [])
