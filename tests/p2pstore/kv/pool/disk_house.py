"""Pools with values on a disk, for tests."""

from __future__ import annotations

from typing import Any

from engine.rpc.codes import Code
from engine.rpc.messages import OffloadItem, StoredObject
from tests.p2pstore.kv.pool.pools import MIB, House, ident

A, B = ident("a"), ident("b")


def house_with_disk(**settings: Any) -> House:
    """A pool with one client, whose disk takes values."""
    house = House(offload=True, **settings)
    house.join("a")
    assert house.pool.mount_disk(A, True) is Code.OK
    return house


def item(key: str, size: int = MIB) -> OffloadItem:
    """A value, as a client is told of it."""
    return OffloadItem("default", key, size)


def stored(size: int = MIB, endpoint: str = "a:9") -> StoredObject:
    """Where a disk has it."""
    return StoredObject(1, 0, 1, size, endpoint)


def kinds(house: House, key: str) -> list[str]:
    """What the replicas of a key that can be read are."""
    looked = house.pool.peek(key)
    return [] if isinstance(looked, Code) else [type(replica.place).__name__ for replica in looked.replicas]


def put_to_disk(house: House, *keys: str) -> None:
    """Put values that are on the disk, too, then."""
    house.put(A, list(keys))
    assert house.pool.offload_heartbeat(A, True) == [item(key) for key in keys]
    assert house.pool.offloaded(A, [item(key) for key in keys], [stored() for _ in keys]) is Code.OK


def on_disk_alone(**settings: Any) -> House:
    """A pool with a value that has left the memory."""
    house = house_with_disk(promotion_on_hit=True, **settings)
    put_to_disk(house, "k")
    house.put(A, [f"n{number}" for number in range(64)])
    house.pool.offload_heartbeat(A, False)  # so that these can be evicted
    house.later(1, A)
    assert kinds(house, "k") == ["LocalDisk"]
    return house
