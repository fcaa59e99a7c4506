"""Looking values up, and the leases that this gives."""

from __future__ import annotations

import pytest

from engine.rpc.codes import Code
from p2pstore.kv.pool import reads
from p2pstore.kv.pool.walks import whole
from tests.p2pstore.kv.pool.pools import House


@pytest.mark.parametrize("look", ["exist", "replicas", "regex"])
def test_each_look_keeps_what_it_finds(look: str) -> None:
    house = House()
    client = house.join("a")
    house.put(client, ["k"])
    if look == "exist":
        assert house.pool.exist(["k", "none"]) == [True, False]
    elif look == "replicas":
        assert house.pool.replicas(["k", "none"])[1] is Code.NOT_FOUND
    else:
        found = whole(house.pool.replicas_by_regex("^k$"))
        assert not isinstance(found, Code)
        assert list(found) == ["k"]
    assert house.pool.remove(["k"]) == [Code.LEASED]
    house.later(10.5, client)
    assert house.pool.remove(["k"]) == [Code.OK]


def test_people_who_look_keep_nothing() -> None:
    house = House()
    house.put(house.join("a"), ["k"])
    looked = house.pool.peek("k")
    assert not isinstance(looked, Code)
    assert looked.lease_ms == 0
    assert house.pool.keys() == ["k"]
    assert house.pool.remove(["k"]) == [Code.OK]
    assert house.pool.peek("k") is Code.NOT_FOUND


def test_what_is_being_written_is_no_key_yet() -> None:
    house = House()
    house.start(house.join("a"), ["k"])
    assert house.pool.keys() == []
    assert house.pool.peek("k") is Code.NOT_READY
    assert whole(house.pool.replicas_by_regex("k")) == {}


@pytest.mark.parametrize("pattern", ["(", "(a+)+b"])
def test_a_pattern_that_is_none_or_too_slow_is_refused(pattern: str) -> None:
    house = House()
    assert whole(house.pool.replicas_by_regex(pattern)) is Code.BAD_PARAMS
    assert whole(house.pool.remove_by_regex(pattern)) is Code.BAD_PARAMS


def test_tenants_see_their_own_keys_where_they_are_kept_apart() -> None:
    house = House(tenants=True)
    client = house.join("a")
    house.put(client, ["k"], tenant="one")
    house.put(client, ["k", "l"], tenant="two")
    assert house.pool.exist(["k", "l"], "one") == [True, False]
    assert house.pool.exist(["k"], "three") == [False]
    assert house.pool.replicas(["k"], "three") == [Code.NOT_FOUND]
    assert house.pool.keys("two") == ["k", "l"]
    assert sorted(house.pool.keys()) == ["k", "k", "l"]
    assert house.pool.tenants_of("k") == ["one", "two"]
    assert whole(house.pool.remove_all(force=True, tenant="two")) == 2
    assert house.pool.exist(["k"], "one") == [True]


def test_tenants_are_one_where_they_are_not() -> None:
    house = House()
    house.put(house.join("a"), ["k"], tenant="one")
    assert house.pool.exist(["k"], "two") == [True]


def test_lookups_are_counted() -> None:
    house = House()
    house.put(house.join("a"), ["k"], 100)
    house.pool.exist(["k", "l"])
    house.pool.replicas(["k", "l"])
    stats = house.pool.stats
    assert (stats.exist_keys, stats.exist_found) == (2, 1)
    assert (stats.total_get_nums, stats.valid_get_nums) == (2, 1)
    assert (stats.mem_cache_hit_nums, stats.mem_cache_hit_bytes) == (1, 100)


def test_a_pattern_is_refused_for_keys_on_which_it_could_take_too_long() -> None:
    house = House()
    client = house.join("a")
    house.put(client, ["k", "a" * 400])
    assert whole(house.pool.replicas_by_regex("a.*.*.*x")) is Code.BAD_PARAMS
    assert whole(house.pool.remove_by_regex("a.*.*.*x")) is Code.BAD_PARAMS
    assert house.there(["k", "a" * 400]) == ["k", "a" * 400], "nothing was removed"


def test_a_pattern_that_picks_more_than_an_answer_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "MAX_FOUND_BYTES", 450)
    house = House()
    client = house.join("a")
    house.put(client, [f"k{number}" for number in range(5)])
    assert whole(house.pool.replicas_by_regex("k")) is Code.BAD_PARAMS
    assert isinstance(whole(house.pool.replicas_by_regex("k[12]")), dict)


def test_a_pattern_that_takes_too_long_altogether_is_refused() -> None:
    house = House()
    client = house.join("a")
    keys = [f"k{number}" for number in range(2000)]
    house.put(client, keys, size=100)
    steps = house.pool.remove_by_regex("k")
    next(steps)
    house.clock.now += reads.MATCH_S + 1
    assert whole(steps) is Code.BAD_PARAMS
    assert house.there(keys) == keys
