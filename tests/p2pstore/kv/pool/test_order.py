"""What stays longer than its age says, or for good."""

from __future__ import annotations

from engine.rpc.codes import Code
from engine.rpc.messages import SoftPin
from tests.p2pstore.kv.pool.pools import House, names


def test_soft_pinned_values_go_only_when_nothing_else_is_left() -> None:
    house = House()
    client = house.join("a")
    house.put(client, names("pinned", 20), soft_pin_action=SoftPin.ENABLE)
    for number in range(120):
        assert house.put(client, [f"k{number}"])
    assert house.there(names("pinned", 20)) == names("pinned", 20)
    assert house.put(client, names("many", 64)) == names("many", 64)
    assert house.there(names("pinned", 20)) == []
    assert house.pool.stats.soft_pin_key_count == 0


def test_soft_pinned_values_never_go_where_that_is_set() -> None:
    house = House(evict_soft_pinned=False)
    client = house.join("a")
    house.put(client, names("pinned", 64), soft_pin_action=SoftPin.ENABLE)
    assert house.start(client, ["k"]) == [Code.NO_SPACE]


def test_a_soft_pin_ends_and_reads_do_not_extend_it() -> None:
    house = House()
    client = house.join("a")
    house.put(client, names("pinned", 10), soft_pin_action=SoftPin.ENABLE, soft_pin_ttl_ms=20_000)
    house.later(15, client)
    house.pool.exist(names("pinned", 10))
    house.later(16, client)
    assert house.pool.stats.soft_pin_key_count == 0
    house.put(client, names("k", 64))
    assert house.there(names("pinned", 10)) == []


def test_hard_pinned_values_never_go() -> None:
    house = House()
    client = house.join("a")
    house.put(client, names("pinned", 64), with_hard_pin=True)
    assert house.start(client, ["k"]) == [Code.NO_SPACE]
    assert house.there(names("pinned", 64)) == names("pinned", 64)


def test_a_value_that_is_being_written_stays() -> None:
    house = House()
    client = house.join("a")
    house.start(client, names("writing", 64))
    assert house.start(client, ["k"]) == [Code.NO_SPACE]
