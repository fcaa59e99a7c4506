"""How values are kept, as their put says."""

from __future__ import annotations

import pytest

from engine.rpc.codes import Code
from engine.rpc.messages import ObjectMeta, ReplicateConfig, SoftPin
from tests.p2pstore.kv.pool.pools import MIB, House, upsert


def test_a_copy_in_a_file_system_that_all_share_is_refused_as_upstream_does_without_one() -> None:
    house = House()
    client = house.join("a")
    assert house.start(client, ["k"], dfs_replica_num=1) == [Code.DFS_UNAVAILABLE]
    assert house.pool.storage_config().root == "", "so no client writes to files of its own accord"


@pytest.mark.parametrize(
    ("keys", "sizes", "config"),
    [
        ([""], [1], {}),
        (["k"], [0], {}),
        (["k"], [1], {"replica_num": 0}),
        (["k"], [1], {"nof_replica_num": 1}),
        (["k"], [1], {"dfs_replica_num": 2}),
        (["k"], [1], {"dfs_replica_num": 1, "replica_num": 0}),
        (["k"], [1, 2], {}),
        (["k"], [1], {"group_ids": ["a", "b"]}),
        (["k"], [1], {"soft_pin_ttl_ms": 5}),
        (["k"], [1], {"soft_pin_action": SoftPin.ENABLE, "soft_pin_ttl_ms": 24 * 3600 * 1000 + 1}),
        (["k"], [1], {"soft_pin_action": 9}),
    ],
    ids=str,
)
def test_arguments_that_are_not_allowed_are_600(keys: list[str], sizes: list[int], config: dict[str, object]) -> None:

    house = House()
    client = house.join("a")
    answers = house.pool.put_start(client, keys, sizes, ReplicateConfig(**config))  # type: ignore[arg-type]
    assert answers == [Code.BAD_PARAMS] * len(keys)
    assert house.pool.stats.allocated_bytes == 0


def test_more_replicas_than_segments_are_as_many_as_there_are() -> None:
    house = House()
    client = house.join("a")
    (one,) = house.start(client, ["k"], replica_num=3)
    assert len(one) == 1
    house.join("b", base=1 << 40)
    (two,) = house.start(client, ["l"], replica_num=3)
    assert {replica.place.endpoint for replica in two} == {"a", "b"}
    assert house.pool.stats.put_start_partial_allocations == 2


def test_replicas_go_where_they_are_preferred() -> None:
    house = House()
    client = house.join("a")
    house.join("b")
    house.join("c", host="host-c")
    for number in range(8):
        assert house.start(client, [f"s{number}"], preferred_segment="b")[0][0].place.endpoint == "b"
        assert house.start(client, [f"l{number}"], preferred_segments=["c"])[0][0].place.endpoint == "c"
        config = {"prefer_alloc_in_same_node": True, "host_id": "host-c"}
        assert house.start(client, [f"h{number}"], **config)[0][0].place.endpoint == "c"


def test_an_upsert_of_another_size_keeps_the_pins() -> None:
    house = House()
    client = house.join("a")
    house.put(client, ["k"], with_hard_pin=True)
    assert isinstance(upsert(house, client, "k", 2 * MIB)[0], list)
    house.pool.upsert_end(client, [ObjectMeta("k")])
    house.later(11, client)
    house.put(client, [str(number) for number in range(200)])
    assert house.there(["k"]) == ["k"]


def test_a_value_does_not_change_its_group() -> None:
    house = House()
    client = house.join("a")
    house.put(client, ["k"], group_ids=["g"])
    assert upsert(house, client, "k", group_ids=["h"]) == [Code.BAD_PARAMS]
