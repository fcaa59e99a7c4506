"""What is asked of the store is answered of what lives; what is no record of ours is passed over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p2pstore.cluster import records
from p2pstore.cluster.lookup import Lookup
from p2pstore.cluster.records import NodeRecord, ReplicaRecord
from p2pstore.cluster.registry import Registry
from p2pstore.errors import HolderGone, NodeNotFound, ObjectNotFound
from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.metadata.store import Put
from tests.p2pstore.cluster.registries import PARTIAL, a, b, registry, server, thing

__all__ = ["a", "b", "server"]


async def test_of_a_name_whose_holders_died_it_is_told_who_had_it(a: Registry, b: Registry) -> None:
    await a.publish(thing("x", "m1"))
    assert isinstance(await b.missing("y"), ObjectNotFound)
    await a.store.revoke(a.lease)
    assert await b.listing("", limit=10, after="") == ([], "")
    assert await b.find("x") is None
    why = await a.missing("x")
    assert isinstance(why, HolderGone)
    assert why.exit_code == 5
    assert "a, which registered it" in str(why)


async def test_nodes(a: Registry, b: Registry) -> None:
    record = NodeRecord("a", "127.0.0.1:1", "127.0.0.1:2", 3)
    await a.join(record)
    assert await b.nodes(["a", "b", "c"]) == {"a": record}
    await a.store.revoke(a.lease)
    assert await b.nodes(["a"]) == {}
    assert await b.nodes([]) == {}


async def test_foreign_replicas_are_passed_over(a: Registry) -> None:
    await a.publish(thing("x", "m1"))
    await a.store.commit([Put(records.replica_key("m1", "z"), b"\xff"), Put(records.replica_key("m1", "y"), b"{}")])
    await a.store.commit([Put(records.replica_key("m1", "w"), records.encode(replace(PARTIAL, node="lies")))])
    assert await a.replicas("m1") == {
        "a": ReplicaRecord("a", "complete", "gold"),
        "w": ReplicaRecord("w", "partial", "replica"),
    }


async def test_a_node_is_found_by_its_hosts_name(server: MemoryServer) -> None:
    for name in ("host1-a76f", "host2-0123", "host2-beef"):
        node = await registry(server, name)
        await node.join(NodeRecord(name, f"{name}:7300", f"{name}:7301", 7302))
    asking = await registry(server, "asking")
    assert await asking.control_of("10.0.0.1:7300") == "10.0.0.1:7300"
    for asked in ("host1-a76f", "host1", "host1.cluster"):
        assert await asking.control_of(asked) == "host1-a76f:7300"
    with pytest.raises(NodeNotFound, match=r"named 'host2'; it may be one of host2-0123, host2-beef$"):
        await asking.called("host2")
    with pytest.raises(NodeNotFound, match=r"no live node is named 'host3'$"):
        await asking.called("host3")


async def test_a_lookup_needs_no_name_and_no_lease(server: MemoryServer, a: Registry) -> None:
    await a.publish(thing("x", "m1"))
    asking = Lookup(MemoryStore(server))
    assert await asking.find_all(["x", "y"]) == {"x": thing("x", "m1")}
    assert [(e.record.name, e.complete, e.partial) for e in await asking.counted([thing("x", "m1")])] == [("x", 1, 0)]
    assert not await asking.dead(thing("x", "m1"))
    assert await asking.dead(thing("x", "m2"))
