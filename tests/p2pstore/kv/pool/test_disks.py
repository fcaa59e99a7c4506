"""Values on the disks of clients."""

from __future__ import annotations

import pytest

from engine.rpc.codes import Code
from engine.rpc.messages import Kind, LocalDisk, Memory, ObjectMeta, ReplicateConfig, Status
from p2pstore.kv.pool.pool import Pool
from p2pstore.kv.pool.walks import whole
from tests.p2pstore.kv.pool.disk_house import A, B, house_with_disk, item, kinds, put_to_disk, stored
from tests.p2pstore.kv.pool.pools import MIB, House, segment


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
