"""The neutral forms: the codec, the pool and the clients rely on their order and on their defaults."""

from __future__ import annotations

import engine.rpc.messages as m


def test_fields_stand_in_the_order_of_the_wire() -> None:
    assert m.Segment._fields == ("id", "name", "base", "size", "endpoint", "protocol", "host_id")
    assert m.Memory._fields == ("size", "address", "protocol", "endpoint")
    assert m.Replica._fields == ("id", "place", "status")
    assert m.Replicas._fields == ("replicas", "lease_ms", "checksum")
    assert m.ReplicateConfig._fields == (
        "replica_num", "nof_replica_num", "dfs_replica_num", "soft_pin_action", "soft_pin_ttl_ms", "with_hard_pin",
        "preferred_segments", "preferred_segment", "preferred_nof_segments", "prefer_alloc_in_same_node", "data_type",
        "host_id", "group_ids",
    )  # fmt: skip


def test_a_config_that_says_nothing_asks_for_one_replica_in_memory() -> None:
    config = m.ReplicateConfig()
    assert config.replica_num == 1
    assert (config.nof_replica_num, config.dfs_replica_num) == (0, 0)
    assert config.soft_pin_action == m.SoftPin.PRESERVE
    assert not config.with_hard_pin
    assert config.group_ids is None


def test_ids_are_sixteen_bytes() -> None:
    assert len(m.NO_ID) == 16
