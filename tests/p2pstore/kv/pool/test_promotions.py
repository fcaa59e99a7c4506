"""Values that come back from disks to memory."""

from __future__ import annotations

from engine.rpc.codes import Code
from tests.p2pstore.kv.pool.disk_house import A, B, item, kinds, on_disk_alone
from tests.p2pstore.kv.pool.pools import MIB


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
    assert house.pool._disks._offloads == house.pool._promotions._promotions == {}


def test_removed_values_leave_no_work_behind() -> None:
    house = on_disk_alone()
    house.pool.replicas(["k"])
    house.pool.replicas(["k"])
    house.pool.promotion_start(A, "k", MIB)
    assert house.pool.remove(["k"], force=True) == [Code.OK]
    assert house.pool.promotion_done(A, "k") is Code.NOT_FOUND
    assert house.pool._promotions._promotions == {}
    house.later(601, A)
    assert house.pool.stats.allocated_bytes == MIB * house.pool.stats.key_count
