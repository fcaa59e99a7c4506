"""Which rail is next, and when one that failed is tried again."""

from __future__ import annotations

from engine.transports.rdma.reader.rails import PAUSES, Rail, pick, to_revive


def rail(name: str, *, alive: bool = True, tier: int = 0, room: int = 4) -> Rail:
    return Rail(name, tier=tier, room=room, alive=alive)


def test_the_least_busy_rail_is_next() -> None:
    one, other = rail("one"), rail("other")
    one.began(100)
    assert pick([one, other]) is other
    other.began(300)
    assert pick([one, other]) is one
    one.ended(100, well=True)
    assert (one.under_way, one.moved, one.room) == (0, 100, 4)


def test_a_worse_tier_is_for_failures_not_for_haste() -> None:
    near, far = rail("near", room=1), rail("far", tier=1)
    near.began(5)
    assert pick([near, far]) is None
    near.failed(0.0)
    assert pick([near, far]) is far
    assert pick([]) is None


def test_a_rail_that_fails_pauses_longer_each_time() -> None:
    one, other = rail("one"), rail("other")
    one.failed(10.0)
    assert to_revive([one, other], 10.0) == []
    assert to_revive([one, other], 10.0 + PAUSES.first) == [one]
    for _ in range(2000):
        one.failed(10.0)
    assert one.paused_until == 10.0 + PAUSES.last
    one.ended(0, well=True)
    assert not one.failures


def test_where_none_is_alive_nobody_waits() -> None:
    worse, better = rail("worse"), rail("better")
    better.failed(0.0)
    worse.failed(0.0)
    worse.failed(0.0)
    assert to_revive([worse, better], 0.0) == [better, worse]
