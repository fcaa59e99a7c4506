"""Values on the disks of clients."""

from __future__ import annotations

from typing import Any

import pytest

from engine.rpc.codes import Code
from engine.rpc.messages import Kind, LocalDisk, Memory, ObjectMeta, OffloadItem, ReplicateConfig, Status, StoredObject
from p2pstore.kv.pool.pool import Pool
from p2pstore.kv.pool.walks import whole
from tests.p2pstore.kv.pool.pools import MIB, House, ident, segment

A, B = ident("a"), ident("b")


def house_with_disk(**settings: Any) -> House:
    house = House(offload=True, **settings)
    house.join("a")
    assert house.pool.mount_disk(A, True) is Code.OK
    return house


def item(key: str, size: int = MIB) -> OffloadItem:
    return OffloadItem("default", key, size)


def stored(size: int = MIB, endpoint: str = "a:9") -> StoredObject:
    return StoredObject(1, 0, 1, size, endpoint)


def kinds(house: House, key: str) -> list[str]:
    looked = house.pool.peek(key)
    return [] if isinstance(looked, Code) else [type(replica.place).__name__ for replica in looked.replicas]


def put_to_disk(house: House, *keys: str) -> None:
    house.put(A, list(keys))
    assert house.pool.offload_heartbeat(A, True) == [item(key) for key in keys]
    assert house.pool.offloaded(A, [item(key) for key in keys], [stored() for _ in keys]) is Code.OK


def test_without_the_setting_disks_are_refused() -> None:
    house = House()
    house.join("a")
    assert house.pool.mount_disk(A, True) is house.pool.unmount_disk(A) is Code.OFFLOAD_DISABLED
    assert house.pool.offload_heartbeat(A, True) is Code.NO_SEGMENT
    assert house.pool.promotion_heartbeat(A) is Code.NO_SEGMENT
    assert house.pool.report_disk(A, 5) is Code.NO_SEGMENT


def test_a_value_that_was_put_is_written_to_its_owners_disk() -> None:
    house = house_with_disk()
    assert house.pool.report_disk(A, 1 << 40) is Code.OK
    assert house.pool.report_disk(A, -1) is Code.BAD_PARAMS
    put_to_disk(house, "k")
    looked = house.pool.peek("k")
    assert not isinstance(looked, Code)
    memory, disk = looked.replicas
    assert isinstance(memory.place, Memory)
    assert disk.place == LocalDisk(A, MIB, "a:9")
    assert disk.status == Status.COMPLETE
    assert house.pool.offload_heartbeat(A, True) == []


def test_a_value_on_a_disk_outlives_its_memory() -> None:
    house = house_with_disk()
    put_to_disk(house, "k")
    house.put(A, [f"n{number}" for number in range(64)])
    assert kinds(house, "k") == ["LocalDisk"]
    assert house.pool.exist(["k"]) == [True]
    house.later(11, A)
    house.put(A, [f"m{number}" for number in range(128)])
    assert kinds(house, "k") == ["LocalDisk"]


def test_what_is_being_written_to_a_disk_stays_in_memory() -> None:
    house = house_with_disk()
    house.put(A, ["k"])
    house.pool.offload_heartbeat(A, True)
    house.put(A, [f"n{number}" for number in range(100)])
    assert kinds(house, "k") == ["Memory"]


def test_what_is_evicted_goes_to_a_disk_first_where_that_is_set() -> None:
    house = house_with_disk(offload_on_evict=True)
    house.put(A, [f"k{number}" for number in range(60)])
    assert house.pool.offload_heartbeat(A, True) == []
    house.ticked()
    told = house.pool.offload_heartbeat(A, True)
    assert isinstance(told, list)
    assert len(told) >= 3
    assert house.pool.stats.key_count == 60
    house.pool.offloaded(A, told, [stored() for _ in told])
    house.later(3, A)
    assert {tuple(kinds(house, each.key)) for each in told} <= {("LocalDisk",), ("Memory", "LocalDisk")}
    assert house.pool.stats.key_count == 60
    assert house.pool.stats.allocated_bytes < 60 * MIB


def test_where_no_disk_takes_it_what_is_evicted_is_gone() -> None:
    house = House(offload=True, offload_on_evict=True)
    house.join("a")
    house.put(A, [f"k{number}" for number in range(100)])
    assert house.pool.stats.key_count == 64


def test_a_write_to_disk_that_failed_lets_the_value_go() -> None:
    house = house_with_disk()
    house.put(A, ["k"])
    house.pool.offload_heartbeat(A, True)
    assert house.pool.offloaded(A, [item("k")], [stored(-1)]) is Code.OK
    assert kinds(house, "k") == ["Memory"]
    house.put(A, [f"n{number}" for number in range(64)])
    assert house.there(["k"]) == []
    assert house.pool.offloaded(A, [item("k")], []) is Code.BAD_PARAMS


@pytest.mark.parametrize("again", [False, True])
def test_a_value_removed_while_it_is_written_to_a_disk_is_not_there_afterwards(again: bool) -> None:
    """Its memory may have been another value's before the disk's writer read it."""
    house = house_with_disk()
    house.put(A, ["k"])
    house.pool.offload_heartbeat(A, True)
    assert house.pool.remove(["k"], force=True) == [Code.OK]
    if again:
        house.put(A, ["k"])
    assert house.pool.offloaded(A, [item("k")], [stored()]) is Code.OK
    assert kinds(house, "k") == (["Memory"] if again else [])


def test_a_value_that_only_waits_for_its_disk_is_replaced_and_one_that_is_written_is_not() -> None:
    house = house_with_disk()
    house.put(A, ["k"])
    config = ReplicateConfig()
    assert isinstance(house.pool.upsert_start(A, ["k"], [MIB], config)[0], list)
    house.pool.upsert_end(A, [ObjectMeta("k")])
    assert house.pool.offload_heartbeat(A, True) == [item("k")]
    assert house.pool.upsert_start(A, ["k"], [MIB], config) == [Code.HAS_TASK]


def test_a_client_that_cannot_write_now_is_asked_nothing() -> None:
    house = house_with_disk()
    house.put(A, ["k"])
    assert house.pool.offload_heartbeat(A, False) == []
    assert house.pool.offload_heartbeat(A, True) == []
    house.put(A, [f"n{number}" for number in range(64)])
    assert house.there(["k"]) == []


def test_a_client_says_what_it_has_on_its_disk_from_before() -> None:
    house = house_with_disk()
    house.put(A, ["in memory"])
    names = ["before", "in memory", "empty"]
    assert house.pool.offloaded(A, [item(key) for key in names], [stored(5), stored(5), stored(0)]) is Code.OK
    assert kinds(house, "before") == ["LocalDisk"]
    assert kinds(house, "in memory") == ["Memory"], "nobody knows whether that is the same value"
    assert kinds(house, "empty") == []
    house.pool.offloaded(A, [item("before")], [stored(5, "a:10")])
    looked = house.pool.peek("before")
    assert not isinstance(looked, Code)
    assert looked.replicas[0].place == LocalDisk(A, 5, "a:10")
    assert house.pool.offloaded(B, [item("x")], [stored()]) is Code.NO_SEGMENT


def test_a_disk_is_believed_once_all_who_had_the_value_are_silent() -> None:
    house = house_with_disk()
    house.put(A, ["k"])
    b = house.join("b", base=2 << 32)
    assert house.pool.mount_disk(b, True) is Code.OK
    assert house.pool.offloaded(b, [item("k")], [stored(endpoint="b:9")]) is Code.OK
    assert kinds(house, "k") == ["Memory"]  # nobody asked it, and its value may be an older one
    house.start(A, ["begun"])
    house.later(house.settings.client_ttl + 1, b)
    assert kinds(house, "k") == []
    told = house.pool.offloaded(b, [item("k"), item("begun")], [stored(endpoint="b:9")] * 2)
    assert told is Code.OK
    assert kinds(house, "k") == ["LocalDisk"]
    assert kinds(house, "begun") == []


def test_a_disk_that_is_taken_back_takes_its_values_along() -> None:
    house = house_with_disk()
    put_to_disk(house, "k")
    house.put(A, [f"n{number}" for number in range(64)])
    assert house.pool.unmount_disk(A) is Code.OK
    assert house.pool.unmount_disk(A) is Code.OK
    assert house.there(["k"]) == []
    house.ticked()
    assert "k" not in house.pool._index.tenants["default"].keys
    assert house.pool.mount_disk(A, True) is Code.OK
    assert house.there(["k"]) == []


def test_values_on_an_absent_clients_disk_come_back_with_it() -> None:
    house = house_with_disk()
    put_to_disk(house, "k")
    house.put(A, [f"n{number}" for number in range(64)])
    house.later(12)
    assert house.there(["k"]) == []
    house.pool.remount(A, [segment("a")])
    assert house.there(["k"]) == ["k"]
    house.later(12)
    house.later(601)
    assert house.pool.stats.key_count == 0


def test_a_client_evicts_from_its_own_disk() -> None:
    house = house_with_disk()
    put_to_disk(house, "k", "l")
    assert house.pool.evict_disk(B, ["k"]) == [Code.OK]
    assert kinds(house, "k") == ["Memory", "LocalDisk"]
    assert house.pool.evict_disk(A, ["k", "none"]) == [Code.OK, Code.NOT_FOUND]
    assert kinds(house, "k") == ["Memory"]
    assert house.pool.evict_disk(A, ["l"], Kind.DISK) == [Code.OK]
    assert house.pool.evict_disk(A, ["l"], Kind.MEMORY) == [Code.BAD_PARAMS]


def test_disks_are_told_once_to_clear_what_was_removed() -> None:
    house = house_with_disk()
    house.pool.mount_disk(B, True)
    put_to_disk(house, "k")
    assert house.pool.poll_remove_all(A) is False
    whole(house.pool.remove_all(force=True, tenant="default"))
    assert [house.pool.poll_remove_all(each) for each in (A, A, B)] == [True, False, False]
    whole(house.pool.remove_all(force=True))
    assert house.pool.poll_remove_all(B) is True


# -- back to memory


def on_disk_alone(**settings: Any) -> House:
    house = house_with_disk(promotion_on_hit=True, **settings)
    put_to_disk(house, "k")
    house.put(A, [f"n{number}" for number in range(64)])
    house.pool.offload_heartbeat(A, False)  # so that these can be evicted
    house.later(1, A)
    assert kinds(house, "k") == ["LocalDisk"]
    return house


def test_what_is_read_twice_from_a_disk_is_brought_back() -> None:
    house = on_disk_alone()
    house.pool.replicas(["k"])
    assert house.pool.promotion_heartbeat(A) == []
    house.pool.replicas(["k"])
    house.pool.replicas(["k"])
    assert house.pool.promotion_heartbeat(A) == [item("k")]
    assert house.pool.promotion_heartbeat(A) == []
    staged = house.pool.promotion_start(A, "k", MIB, ["a"])
    assert not isinstance(staged, Code)
    assert kinds(house, "k") == ["LocalDisk"]
    assert house.pool.promotion_start(A, "k", MIB) is Code.NOT_READY
    assert house.pool.promotion_done(B, "k") is Code.BAD_PARAMS
    assert house.pool.promotion_done(A, "k") is Code.OK
    assert kinds(house, "k") == ["Memory", "LocalDisk"]
    assert house.pool.promotion_done(A, "k") is Code.NOT_READY
    stats = house.pool.stats
    assert (stats.promotion_admitted, stats.promotion_completed, stats.promotion_in_flight) == (1, 1, 0)
    house.later(11, A)
    house.put(A, [f"m{number}" for number in range(64)])
    assert kinds(house, "k") == ["LocalDisk"], "and it can go again"


def test_a_value_that_could_not_be_brought_back_takes_no_memory() -> None:
    house = on_disk_alone()
    house.pool.replicas(["k"])
    house.pool.replicas(["k"])
    used = house.pool.stats.allocated_bytes
    assert house.pool.promotion_start(A, "k", MIB + 1) is Code.BAD_PARAMS
    assert house.pool.promotion_done(A, "k") is Code.NOT_READY
    house.pool.promotion_start(A, "k", MIB)
    assert house.pool.promotion_failed(A, "k") is Code.OK
    assert house.pool.promotion_failed(A, "k") is Code.OK
    assert house.pool.stats.allocated_bytes == used
    assert kinds(house, "k") == ["LocalDisk"]


def test_nothing_is_brought_back_where_memory_is_short() -> None:
    house = on_disk_alone()
    while house.pool.stats.allocated_bytes < 60 * MIB:
        house.put(A, [f"x{house.pool.stats.key_count}"])
    house.pool.replicas(["k"])
    house.pool.replicas(["k"])
    assert house.pool.promotion_heartbeat(A) == []
    assert house.pool.stats.promotion_rejected_watermark == 1


def test_what_no_client_ends_is_given_up() -> None:
    house = on_disk_alone()
    house.pool.replicas(["k"])
    house.pool.replicas(["k"])
    used = house.pool.stats.allocated_bytes
    house.pool.promotion_start(A, "k", MIB)
    house.put(A, ["o"])
    house.pool.offload_heartbeat(A, True)
    house.later(670, A)
    assert house.pool.stats.promotion_expired == 1
    assert house.pool.stats.allocated_bytes == used + MIB
    assert house.pool._disks._offloads == house.pool._disks._promotions == {}


def test_removed_values_leave_no_work_behind() -> None:
    house = on_disk_alone()
    house.pool.replicas(["k"])
    house.pool.replicas(["k"])
    house.pool.promotion_start(A, "k", MIB)
    assert house.pool.remove(["k"], force=True) == [Code.OK]
    assert house.pool.promotion_done(A, "k") is Code.NOT_FOUND
    assert house.pool._disks._promotions == {}
    house.later(601, A)
    assert house.pool.stats.allocated_bytes == MIB * house.pool.stats.key_count


def test_a_restored_pool_knows_what_is_on_disks() -> None:
    house = house_with_disk(log=True)
    put_to_disk(house, "k")
    house.put(A, [f"n{number}" for number in range(64)])
    again = House()
    again.clock = house.clock
    again.pool = Pool.restore(house.settings, house.clock, house.pool.take_log())
    again.pool.remount(A, [segment("a")])
    assert kinds(again, "k") == ["LocalDisk"]
    assert again.pool.mount_disk(A, True) is Code.OK
    assert kinds(again, "k") == ["LocalDisk"]
