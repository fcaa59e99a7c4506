"""Which replica is read first, and how long an endpoint is left for last."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.kv.client import replicas as module
from p2pstore.kv.client.replicas import DEAD_SECONDS, DeadEndpoints, in_order


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def ranked(endpoints: list[str], dead: DeadEndpoints, near: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    order = in_order(endpoints, own="own", near=lambda each: each in near, dead=dead)
    return [endpoints[place] for place in order]


def test_our_own_is_first_then_what_is_near_then_others_then_the_dead() -> None:
    dead = DeadEndpoints(Clock())
    dead.failed("dead", "gone")
    for _ in range(20):
        found = ranked(["dead", "far", "near", "own", "far2"], dead, {"near"})
        assert found[:2] == ["own", "near"]
        assert set(found[2:4]) == {"far", "far2"}
        assert found[4:] == ["dead"]


def test_readers_are_spread_over_what_is_as_good() -> None:
    dead = DeadEndpoints(Clock())
    assert {ranked(["a", "b", "c"], dead)[0] for _ in range(200)} == {"a", "b", "c"}


def test_a_dead_one_is_tried_again_after_a_while_or_when_it_has_answered() -> None:
    clock = Clock()
    dead = DeadEndpoints(clock)
    assert dead.failed("a", "refused")
    assert not dead.failed("a", "reset")
    assert "a" in dead
    assert "b" not in dead
    clock.now = DEAD_SECONDS
    assert "a" not in dead
    assert dead.report()["a"] == (0.0, 2, "reset")
    clock.now += 1
    assert dead.failed("a", "refused"), "it was not taken for dead any more, so this is news"
    assert not dead.failed("a", "refused")
    dead.succeeded("a")
    assert "a" not in dead
    assert not dead.report()


def test_some_that_are_alive_are_known_by_name() -> None:
    dead = DeadEndpoints(Clock())
    for number in range(20):
        dead.succeeded(str(number))
    assert dead.alive()[0] == "19"
    assert len(dead.alive()) == module.MAX_ALIVE
    dead.failed("19", "gone")
    assert "19" not in dead.alive()
    dead.succeeded("19")
    assert "19" in dead.alive()


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DEAD", 3)
    dead = DeadEndpoints(Clock())
    for number in range(10):
        dead.failed(str(number), "gone")
    assert list(dead.report()) == ["7", "8", "9"]


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_every_replica_has_its_turn_once(endpoints: list[str], chance: random.Random) -> None:
    dead = DeadEndpoints(Clock())
    dead.failed("a", "gone")
    order = in_order(endpoints, own="b", near=lambda each: each == "c", dead=dead, shuffle=chance.shuffle)
    assert sorted(order) == list(range(len(endpoints)))
