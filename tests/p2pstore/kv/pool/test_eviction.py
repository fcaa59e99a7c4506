"""Which values go when memory is short."""

from __future__ import annotations

from itertools import pairwise

import pytest

from engine.rpc.codes import Code
from p2pstore.kv.pool.eviction import STEP_ENTRIES
from tests.p2pstore.kv.pool.pools import House, names, segment


def test_above_the_watermark_the_oldest_twentieth_goes() -> None:
    house = House()
    client = house.join("a")
    for key in names("k", 60):
        house.put(client, [key])
        house.clock.now += 0.01
    house.later(1, client)
    left = house.there(names("k", 60))
    assert left == names("k", 60)[60 - len(left) :], "the oldest puts go first"
    assert 51 <= len(left) <= 55
    assert house.pool.stats.evicted_key_count == 60 - len(left)
    event = house.pool.story.of("k0")
    assert event is not None
    assert (event.what, event.detail) == ("evicted", "above the watermark")


def test_a_read_counts_as_use_after_its_lease_too() -> None:
    house = House()
    client = house.join("a")
    house.put(client, names("old", 40))
    house.pool.exist(["old0", "old1", "old2", "old3", "old4"])
    house.later(12, client)
    house.put(client, names("new", 59))
    assert house.there(names("old", 40)) == names("old", 5)


def test_leased_values_stay() -> None:
    house = House()
    client = house.join("a")
    house.put(client, names("k", 64))
    house.pool.replicas(names("k", 64))
    assert house.start(client, ["more"]) == [Code.NO_SPACE]
    house.clock.now += 11
    house.pool.ping(client)
    assert house.put(client, ["more"]) == ["more"]


def test_a_group_goes_as_a_whole() -> None:
    house = House()
    client = house.join("a")
    house.put(client, names("g", 8), group_ids=["group"] * 8)
    house.put(client, names("k", 56))
    house.put(client, ["more"])
    assert house.there(names("g", 8)) == []
    assert len(house.there(names("k", 56))) == 56


def test_a_lease_on_one_of_a_group_keeps_all_of_it() -> None:
    house = House()
    client = house.join("a")
    house.put(client, names("g", 8), group_ids=["group"] * 8)
    house.later(1, client)
    house.pool.exist(["g3"])
    house.put(client, names("k", 100))
    assert house.there(names("g", 8)) == names("g", 8)
    assert house.pool.remove(["g7"]) == [Code.LEASED]


def test_a_step_looks_at_a_bounded_number_of_values() -> None:
    house = House()
    client = house.join("a", 10 * STEP_ENTRIES * 64)
    house.put(client, names("k", 10 * STEP_ENTRIES - 10), 64)
    before = house.pool.stats.key_count
    house.later(0.1)
    steps = 0
    left = [before]
    house.put(client, names("more", 10), 64)
    while house.pool.tick():
        steps += 1
        left.append(house.pool.stats.key_count)
    assert all(one - other <= STEP_ENTRIES for one, other in pairwise(left))
    assert house.pool.stats.allocated_bytes <= 0.9 * house.pool.stats.total_capacity_bytes


def test_nothing_goes_where_no_share_is_to_be_evicted() -> None:
    house = House(eviction_ratio=0.0)
    client = house.join("a")
    house.put(client, names("k", 64))
    house.later(5, client)
    assert len(house.there(names("k", 64))) == 64


@pytest.mark.parametrize("leased", [True, False])
def test_the_pool_says_when_there_is_something_to_do(leased: bool) -> None:
    house = House()
    assert house.pool.due() is None
    client = house.join("a")
    house.put(client, names("k", 60))
    if leased:
        house.pool.exist(names("k", 60))
    due = house.pool.due()
    assert due is not None
    assert due <= house.clock.now


def test_values_of_an_absent_client_do_not_go_for_others_for_that_makes_no_room() -> None:
    house = House()
    client, other = house.join("a"), house.join("b")
    house.put(client, names("aside", 30), preferred_segment="a")
    house.later(12, other)
    for number in range(200):
        assert house.put(other, [f"k{number}"]) == [f"k{number}"]
    house.later(40, other)
    house.pool.remount(client, [segment("a")])
    assert house.there(names("aside", 30)) == names("aside", 30)
    house.put(client, names("more", 128))
    assert house.there(names("aside", 30)) == [], "once they are back they can go again"
