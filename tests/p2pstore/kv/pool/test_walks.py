"""Work on all values in steps: it meets each that stays, whatever happens between."""

from __future__ import annotations

import random
from typing import Any

import pytest

from p2pstore.kv.pool import walks
from p2pstore.kv.pool.walks import Everything, entries_of, whole
from tests.p2pstore.kv.pool.pools import House


def filled(count: int, **settings: Any) -> tuple[House, bytes, list[str]]:
    house = House(**settings)
    client = house.join("a", size=1 << 30)
    keys = [f"k{number}" for number in range(count)]
    for first in range(0, count, 100):
        house.put(client, keys[first : first + 100], size=100)
    return house, client, keys


@pytest.mark.parametrize("at_once", [0, walks.AT_ONCE], ids=["walked", "listed"])
def test_all_values_of_a_tenant_are_met(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walks, "AT_ONCE", at_once)
    house, client, keys = filled(1234, tenants=True)
    house.put(client, ["hard"], with_hard_pin=True)
    house.put(client, ["soft"], soft_pin_action=1)
    house.put(client, ["other"], tenant="other")
    house.start(client, ["being written"])
    index = house.pool._index
    sizes = []
    found = set()
    for some in entries_of(index, index.tenants.named("default")):
        sizes.append(len(some))
        found |= {entry.key for entry in some}
    assert found - {"being written"} == {*keys, "hard", "soft"}
    assert max(sizes) <= 2 * walks.STEP_ENTRIES
    assert "other" in {entry.key for some in entries_of(index, None) for entry in some}
    assert not index.order.plain.walks
    assert not index.order.soft.walks


@pytest.mark.parametrize("seed", range(5))
def test_what_stays_is_met_whatever_is_used_put_and_removed_between(seed: int) -> None:
    chance = random.Random(seed)
    house, client, keys = filled(2000, lease_ms=1000)
    index = house.pool._index
    walk = Everything(index)
    gone: set[str] = set()
    found: set[str] = set()
    while not walk.ended:
        found |= {entry.key for entry in walk.step(50)}
        house.clock.now += 0.3
        house.pool.ping(client)
        house.pool.exist(chance.sample(keys, 30))
        for key in chance.sample(keys, 5):
            house.pool.remove([key], force=True)
            gone.add(key)
        house.put(client, [f"new {house.clock.now}"], size=100)
        house.pool.make_room([1 << 30])  # which evicts some, and puts others in order
    left = set(house.there(keys))
    assert left - gone <= found


def test_a_walk_that_is_given_up_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walks, "AT_ONCE", 0)
    house, _, _ = filled(2000)
    steps = house.pool.remove_all()
    next(steps)
    assert house.pool._index.order.plain.walks
    steps.close()
    assert not house.pool._index.order.plain.walks


def test_all_steps_at_once() -> None:
    house, _, _ = filled(1200)
    turns: list[int] = []
    assert whole(house.pool.remove_all(), lambda: turns.append(house.pool.stats.key_count)) == 1200
    assert len(turns) > 1
    assert turns[0] > 0, "others had their turn between"
