"""What lies where in the log, and what goes."""

from __future__ import annotations

from p2pstore.kv.tiers.records import BLOCK, MAX_KEY, Header
from p2pstore.kv.tiers.ring import Plan, Ring

SIZE = BLOCK  # with its header a value of a block takes two


def ring(blocks: int = 8) -> Ring:
    """With room for ``blocks`` behind the first one."""
    return Ring((blocks + 1) * BLOCK)


def put(ring: Ring, *keys: str, size: int = SIZE) -> list[str]:
    left: list[str] = []
    for key in keys:
        plan = ring.plan(key, size)
        left += plan.left
        ring.keep(plan, key, size, 0)
    return left


def headers(ring: Ring, floor: int = 0) -> list[tuple[int, Header]]:
    return [
        (place.offset, Header(key, place.size, place.sequence, floor, 0)) for key, place in sorted(ring.places.items())
    ]


def test_values_follow_one_another_and_the_oldest_goes_first() -> None:
    it = ring()
    assert put(it, "a", "b", "c", "d") == []
    assert [place.offset // BLOCK for place in it.places.values()] == [1, 3, 5, 7]
    assert put(it, "e") == ["a"]
    assert put(it, "f") == ["b"]
    assert it.places["e"].offset == BLOCK


def test_what_does_not_fit_before_the_end_goes_to_the_beginning_and_the_old_end_goes_first() -> None:
    it = ring(7)
    put(it, "a", "b", "c")  # one block is left
    assert put(it, "d") == ["a"]
    assert put(it, "e", "f") == ["b", "c"]
    put(it, "g", size=1)  # in the last block
    assert put(it, "h", size=3 * BLOCK - 100) == ["d", "e"]
    assert put(it, "i", size=4 * BLOCK) == ["f", "g", "h"]  # f and g are behind the head, and older than h


def test_what_was_replaced_goes_in_its_turn_and_is_not_said_to_go() -> None:
    it = ring()
    put(it, "a", "a", "b", "c")
    assert put(it, "d") == []
    assert put(it, "e") == ["a"]


def test_a_value_that_was_not_written_leaves_its_place_to_the_next() -> None:
    it = ring()
    put(it, "a")
    first = it.plan("b", SIZE)
    second = it.plan("b", SIZE)
    assert (first.offset, first.sequence + 1) == (second.offset, second.sequence)


def test_what_is_too_large_or_has_too_long_a_key_does_not_fit() -> None:
    it = ring()
    assert it.fits("k", 7 * BLOCK)
    assert not it.fits("k", 8 * BLOCK)
    assert it.fits("ü" * (MAX_KEY // 2), 1)
    assert not it.fits("ü" * (MAX_KEY // 2 + 1), 1)


def test_a_restored_ring_goes_on_as_before() -> None:
    it, again = ring(), ring()
    put(it, "a", "b", "c", "d", "e")
    again.restore(headers(it))
    assert again.places == it.places
    assert put(again, "f") == put(it, "f") == ["b"]
    assert again.places == it.places


def test_records_that_were_there_no_more_when_a_later_one_was_written_stay_away() -> None:
    it = ring()
    it.restore([(BLOCK, Header("new", 1, 9, 9, 0)), (3 * BLOCK, Header("old", 1, 4, 1, 0))])
    assert list(it.places) == ["new"]


def test_the_newest_of_a_key_counts() -> None:
    it = ring()
    it.restore([(3 * BLOCK, Header("k", 2, 5, 1, 0)), (BLOCK, Header("k", 1, 4, 1, 0))])
    assert it.places["k"].size == 2


def test_a_smaller_limit_keeps_what_lies_within_it() -> None:
    it, less = ring(), ring(4)
    put(it, "a", "b", "c", "d")
    less.restore(headers(it))
    assert list(less.places) == ["a", "b"]
    assert put(less, "e") == ["a"]
    assert less.places["e"].offset == BLOCK


def test_an_older_value_does_not_come_back_where_the_newer_one_lay_behind_the_limit() -> None:
    it, less = ring(), ring(4)
    put(it, "a", "b", "a")
    found = [(BLOCK, Header("a", SIZE, 1, 1, 0)), *headers(it)]
    assert [place.sequence for place in less.restore(found)] == [1, 3]  # the older one first
    assert list(less.places) == ["b"]


def test_a_greater_limit_is_used() -> None:
    it, more = ring(4), ring(8)
    put(it, "a", "b", "c")  # c lies at the beginning
    more.restore(headers(it))
    assert put(more, "d") == ["b"]
    assert put(more, "e", "f") == []
    assert put(more, "g") == ["c"]


def test_a_record_that_was_not_written_to_its_end_leaves_what_was_before() -> None:
    it = ring()
    put(it, "a", "b", "a")
    newest = it.newest
    assert newest is not None
    it.take_back(newest)
    assert it.places["a"].offset == BLOCK
    assert it.plan("c", SIZE).offset == newest.offset


def test_a_full_disk_makes_the_ring_smaller() -> None:
    it = ring()
    put(it, "a", "b")
    assert it.shrink(it.plan("c", SIZE))
    assert put(it, "c") == ["a"]
    assert it.capacity == 5 * BLOCK
    assert not it.shrink(Plan(BLOCK, BLOCK, 1, 1, []))


def test_nothing_is_left_of_a_cleared_ring_but_its_count() -> None:
    it = ring()
    put(it, "a", "b")
    it.clear()
    assert (it.places, it.stored, it.newest) == ({}, 0, None)
    assert it.plan("c", SIZE).sequence == 3


def test_only_what_is_still_there_can_be_forgotten() -> None:
    it = ring()
    put(it, "a")
    before = it.places["a"]
    put(it, "a")
    assert not it.forget(before)
    assert it.forget(it.places["a"])
    assert it.stored == 0
