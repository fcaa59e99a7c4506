"""Removing values by key, by pattern, and all of them."""

from __future__ import annotations

from engine.rpc.codes import Code
from p2pstore.kv.pool.walks import whole
from tests.p2pstore.kv.pool.pools import MIB, House, ident


def test_what_is_answered_for_each_key() -> None:
    house = House()
    client = house.join("a")
    house.put(client, ["free", "leased"])
    house.start(client, ["writing"])
    house.pool.exist(["leased"])
    keys = ["free", "leased", "writing", "none"]
    assert house.pool.remove(keys) == [Code.OK, Code.LEASED, Code.NOT_READY, Code.NOT_FOUND]
    assert house.pool.remove(keys, force=True) == [Code.NOT_FOUND, Code.OK, Code.NOT_READY, Code.NOT_FOUND]
    assert house.pool.stats.allocated_bytes == MIB


def test_all_skips_what_is_leased_and_counts_the_rest() -> None:
    house = House()
    client = house.join("a")
    house.put(client, ["a", "b", "leased"])
    house.put(client, ["hard"], with_hard_pin=True)
    house.pool.exist(["leased"])
    assert whole(house.pool.remove_all()) == 3
    assert house.pool.keys() == ["leased"]
    assert whole(house.pool.remove_all(force=True)) == 1
    assert house.pool.stats.allocated_bytes == house.pool.stats.key_count == 0


def test_a_pattern_is_searched_anywhere_in_the_key() -> None:
    house = House()
    client = house.join("a")
    house.put(client, ["model@1", "model@2", "other@1"])
    house.pool.exist(["model@2"])
    assert whole(house.pool.remove_by_regex("^model")) == 1
    assert whole(house.pool.remove_by_regex("@1$")) == 1
    assert whole(house.pool.remove_by_regex("model@2", force=True)) == 1
    assert whole(house.pool.remove_by_regex("x", tenant="none")) == 0


def test_a_client_clears_its_own_values() -> None:
    house = House()
    client, other = house.join("a"), house.join("b")
    house.put(client, ["both"], replica_num=2)
    house.put(client, ["mine", "leased"])
    house.put(other, ["theirs"])
    house.start(client, ["writing"])
    house.pool.exist(["leased"])
    keys = ["both", "mine", "leased", "theirs", "writing", "none"]
    assert house.pool.replica_clear(["both"], client, "a") == ["both"]
    assert house.pool.replica_clear(["both"], client, "a") == []
    assert house.pool.replica_clear(keys, client) == ["both", "mine"]
    assert sorted(house.pool.keys()) == ["leased", "theirs"]
    assert house.pool.replica_clear(keys, ident("nobody")) == []


def test_what_was_removed_is_told() -> None:
    house = House()
    house.put(house.join("a"), ["k"])
    house.pool.remove(["k"], force=True)
    event = house.pool.story.of("k")
    assert event is not None
    assert (event.what, event.at, event.detail) == ("removed", 1000.0, "by force")
