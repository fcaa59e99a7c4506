"""The allocator of offsets."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pstore.kv.pool.extents import ALIGN, Extents, rounded


def test_all_of_a_segment_can_be_had() -> None:
    extents = Extents(64 * ALIGN)
    assert {extents.allocate(ALIGN) for _ in range(64)} == set(range(0, 64 * ALIGN, ALIGN))
    assert extents.allocate(1) is None
    assert extents.largest == 0


def test_what_is_given_back_grows_together_again() -> None:
    extents = Extents(100_000 * ALIGN)
    places = [(size, extents.allocate(size)) for size in range(1, 4000, 7)]
    for size, offset in sorted(places, key=lambda place: place[0] % 13):
        assert offset is not None
        extents.free(offset, size)
    assert extents.used == 0
    assert extents.largest == extents.capacity
    assert extents.allocate(extents.capacity) == 0


def test_a_free_extent_that_just_fits_is_found_though_its_bin_holds_shorter_ones() -> None:
    extents = Extents(1000 * ALIGN)
    size = 100 * ALIGN
    offsets = [extents.allocate(size + extra * ALIGN) for extra in (0, 2, 1)]
    gaps = [extents.allocate(ALIGN)]
    rest = extents.allocate(1000 * ALIGN - extents.used)
    assert None not in (*offsets, *gaps, rest)
    extents.free(offsets[1], size + 2 * ALIGN)  # type: ignore[arg-type]
    assert extents.allocate(size + 2 * ALIGN) == offsets[1]


def test_it_begins_with_what_is_taken() -> None:
    extents = Extents(100 * ALIGN, [(50 * ALIGN, ALIGN - 1), (0, 10 * ALIGN)])
    assert extents.used == 11 * ALIGN
    assert extents.largest == 49 * ALIGN
    extents.free(50 * ALIGN, ALIGN - 1)
    assert extents.largest == 90 * ALIGN


@pytest.mark.parametrize("taken", [[(0, 2 * ALIGN), (ALIGN, ALIGN)], [(90 * ALIGN, 11 * ALIGN)]])
def test_what_cannot_be_taken_is_refused(taken: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match=r"taken twice|behind the end"):
        Extents(100 * ALIGN, taken)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_nothing_is_given_twice_and_no_room_is_lost(data: st.DataObject) -> None:
    extents = Extents(512 * ALIGN)
    held: dict[int, int] = {}
    for _ in range(data.draw(st.integers(1, 60))):
        if held and data.draw(st.booleans()):
            offset = data.draw(st.sampled_from(sorted(held)))
            extents.free(offset, held.pop(offset))
        else:
            size = data.draw(st.integers(1, 80 * ALIGN))
            expected = extents.fits(size)
            found = extents.allocate(size)
            assert expected == (found is not None)
            spans = sorted((at, at + rounded(length)) for at, length in held.items())
            gaps = zip([0, *[end for _, end in spans]], [*[start for start, _ in spans], extents.capacity], strict=True)
            fits = any(end - start >= rounded(size) for start, end in gaps)
            assert (found is not None) == fits
            if found is not None:
                assert all(found + rounded(size) <= start or found >= end for start, end in spans)
                assert found + size <= extents.capacity
                held[found] = size
        assert extents.used == sum(map(rounded, held.values()))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_many_of_one_size_lie_beside_one_another_and_nowhere_twice(data: st.DataObject) -> None:
    extents, likewise = Extents(512 * ALIGN), Extents(512 * ALIGN)
    held: dict[int, int] = {}
    for _ in range(data.draw(st.integers(1, 30))):
        if held and data.draw(st.booleans()):
            offset = data.draw(st.sampled_from(sorted(held)))
            size = held.pop(offset)
            extents.free(offset, size)
            likewise.free(offset, size)
            continue
        size, count = data.draw(st.integers(1, 20 * ALIGN)), data.draw(st.integers(1, 40))
        before = extents.used
        found = extents.allocate_some(size, count)
        assert bool(found) == (likewise.allocate(size) is not None)
        assert len(found) <= count
        assert extents.used == before + len(found) * rounded(size)
        for offset in found:
            assert offset + size <= extents.capacity
            assert all(offset + rounded(size) <= at or offset >= at + rounded(held[at]) for at in held)
            held[offset] = size
        likewise = Extents(512 * ALIGN, list(held.items()))
        extents = Extents(512 * ALIGN, list(held.items())) if data.draw(st.booleans()) else extents
        assert extents.largest == likewise.largest
        assert extents.used == likewise.used


def test_as_many_as_there_is_room_for_are_given() -> None:
    extents = Extents(10 * ALIGN)
    assert list(extents.allocate_some(3 * ALIGN, 9)) == [ALIGN, 4 * ALIGN, 7 * ALIGN]
    assert list(extents.allocate_some(3 * ALIGN, 9)) == []
    assert list(extents.allocate_some(ALIGN, 9)) == [0]
