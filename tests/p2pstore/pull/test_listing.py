"""Who is listed comes in a good order, and who comes and goes is told."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from p2pstore.cluster.records import NodeRecord, ReplicaRecord
from p2pstore.cluster.registry import Registry
from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.pull import holders
from p2pstore.pull import listing as module
from p2pstore.pull.listing import Came, Everybody, Gone, Listing

DIGEST = "0" * 64
ME = NodeRecord("me", "127.0.0.1:1", "127.0.0.1:2", 3)
WAIT = 30.0


async def joined(server: MemoryServer, node: str, zone: str = "") -> Registry:
    registry = Registry(MemoryStore(server), node)
    registry.lease = await registry.store.grant(600)
    await registry.join(NodeRecord(node, "c:1", "c:1", 1, zone=zone))
    return registry


async def test_who_comes_and_goes_and_who_has_all() -> None:
    server = MemoryServer()
    one, two = await joined(server, "one"), await joined(server, "two")
    await one.announce(DIGEST, ReplicaRecord("one", "complete", "gold"))
    listing = Listing(Registry(MemoryStore(server), "me"), DIGEST, ME)
    async with aclosing(listing.changes()) as changes:

        async def change() -> Everybody | Came | Gone:
            return await asyncio.wait_for(changes.__anext__(), WAIT)

        assert await change() == Everybody(["one"])
        assert listing.complete == {"one"}
        await two.announce(DIGEST, ReplicaRecord("two", "partial", "copy"))
        assert await change() == Came("two")
        assert listing.complete == {"one"}
        await two.announce(DIGEST, ReplicaRecord("two", "complete", "copy"))
        assert await change() == Came("two")
        assert listing.complete == {"one", "two"}
        await one.store.revoke(one.lease)
        assert await change() == Gone("one")
        assert listing.complete == {"two"}


async def test_of_many_holders_a_whole_and_a_near_one_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (module, holders):
        monkeypatch.setattr(each, "MAX_SOURCES", 2)
    server = MemoryServer()
    nodes = [f"n{number:02}" for number in range(20)]
    for node in nodes:
        await joined(server, node, "z" if node == "n07" else "y")
    listing = Listing(Registry(MemoryStore(server), "me"), DIGEST, NodeRecord("me", "c:1", "c:1", 1, zone="z"))
    listing.complete = {"n03", "elsewhere"}
    orders = [await listing.in_order(nodes) for _ in range(5)]
    assert all(list(order[:2]) == ["n03", "n07"] for order in orders)
    assert all(sorted(order) == nodes for order in orders)
    assert len({tuple(order) for order in orders}) > 1, "the others come at random"
