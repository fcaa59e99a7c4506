"""Whole and near holders are tried first, and one that fails again and again is put off."""

from __future__ import annotations

from p2pstore.pull.holders import MAX_COMPLETE, MAX_SOURCES, PUT_OFF, RETRIES, Tries, in_order
from p2pstore.swarm.gateway import ABROAD, SAME_HOST, SAME_ZONE

MANY = [f"n{number}" for number in range(4 * MAX_SOURCES)]


def test_few_come_as_chance_has_it() -> None:
    few = MANY[:MAX_SOURCES]
    assert in_order(few[::-1], few, {few[3]: SAME_HOST}) == few[::-1]


def test_a_few_that_have_everything_come_first_and_then_the_nearest() -> None:
    distances = {MANY[9]: SAME_ZONE, MANY[7]: SAME_HOST, MANY[1]: ABROAD}
    order = in_order(MANY, MANY[20:30], distances)
    assert set(order[:MAX_COMPLETE]) <= set(MANY[20:30])
    assert order[MAX_COMPLETE : MAX_COMPLETE + 2] == [MANY[7], MANY[9]]
    assert order[MAX_COMPLETE + 2] == MANY[0]
    assert sorted(order) == sorted(MANY)


def test_the_near_take_half_of_the_places_at_most() -> None:
    order = in_order(MANY, [], dict.fromkeys(reversed(MANY[-MAX_SOURCES:]), SAME_ZONE))
    assert [node in MANY[-MAX_SOURCES:] for node in order[:MAX_SOURCES]].count(True) == MAX_SOURCES // 2


def test_who_has_everything_is_drawn_at_random() -> None:
    assert len({tuple(in_order(MANY, MANY, {})[:MAX_COMPLETE]) for _ in range(50)}) > 1


def test_a_holder_that_is_given_up_again_and_again_is_put_off_until_it_delivers() -> None:
    tries = Tries()
    first = [tries.pause(dropped=True, delivered=False, lasted=60.0) for _ in range(8)]
    assert first[0] <= PUT_OFF.first
    assert PUT_OFF.last / 2 <= first[-1] <= PUT_OFF.last
    assert tries.pause(dropped=True, delivered=True, lasted=1.0) <= PUT_OFF.first
    assert tries.pause(dropped=False, delivered=False, lasted=60.0) <= RETRIES.first
    longer = [tries.pause(dropped=False, delivered=False, lasted=0.0) for _ in range(8)]
    assert RETRIES.last / 2 <= longer[-1] <= RETRIES.last
