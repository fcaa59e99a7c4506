"""A chunk is put together once for several sets of pieces: each ends up with what its own plan would have brought."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.tensors.header import parse_header
from p2pstore.tensors.plan import Cut, Map, Piece, Plan, make_plan, rows_of
from p2pstore.tensors.spread import Layout, SpreadMap
from tests.p2pstore.tensors.checkpoints import Shapes, file_of

SHAPES: Shapes = {
    "whole": ("F32", (7,)),
    "columns": ("F32", (8, 6)),
    "rows": ("U8", (5, 8)),
    "norm": ("F16", (12,)),
    "deep": ("U8", (2, 8, 3)),
    "scalar": ("F16", ()),
}
DATA = file_of(SHAPES)
CUTS = st.one_of(
    st.none(),
    st.builds(Cut, st.just(0), st.integers(0, 1), st.just(2)),
    st.builds(Cut, st.just(1), st.integers(0, 1), st.just(2)),
)


def planned(cuts: dict[str, Cut | None]) -> Plan:
    header = parse_header(DATA, len(DATA))
    return make_plan([(0, tensor, cuts.get(tensor.name)) for tensor in header.tensors if tensor.name in cuts], [0])


def alone(plan: Plan) -> list[bytes]:
    areas = [bytearray(size) for size in plan.sizes]
    for segment in Map(plan.pieces).segments(0, len(DATA)):
        if segment.piece is not None:
            for low, high, to in rows_of(segment.piece, segment.begin, segment.end):
                areas[segment.piece.area][to : to + high - low] = DATA[segment.begin + low : segment.begin + high]
    return [bytes(area) for area in areas]


def put_together(layout: Layout, begin: int, end: int, step: int) -> bytearray:
    """Receive a chunk, ``step`` bytes at a time."""
    staged, at = bytearray(b"\xee" * layout.size), begin
    for stretch in layout.stretches:
        assert stretch.begin == at, "they are the whole range"
        while at < stretch.end:
            count = min(step, stretch.end - at)
            came = DATA[at : at + count]
            if stretch.start is not None:
                to = stretch.start + at - stretch.begin
                staged[to : to + count] = came
            for piece, shift in stretch.rows:
                for low, high, place in rows_of(piece, at, at + count):
                    staged[place + shift : place + shift + high - low] = came[low:high]
            at += count
    assert at == end
    return staged


def together(plans: Sequence[Plan], chunk: int, step: int, wide: int) -> list[list[bytes]]:
    areas = [[bytearray(size) for size in plan.sizes] for plan in plans]
    places = SpreadMap([plan.pieces for plan in plans], wide)
    for begin in range(0, len(DATA), chunk):
        end = min(begin + chunk, len(DATA))
        layout = places.layout(begin, end)
        staged = put_together(layout, begin, end, step)
        for part in layout.parts:
            assert part.start + (part.rows - 1) * part.stride + part.row <= layout.size
            starts = (
                range(part.start, part.start + part.rows * part.stride, part.stride) if part.stride else [part.start]
            )
            data = b"".join(staged[start : start + part.row] for start in starts)
            assert len(data) == part.row * part.rows
            for number, area, offset in part.places:
                areas[number][area][offset : offset + len(data)] = data
    return [[bytes(area) for area in each] for each in areas]


def cuts_of_all(how: st.SearchStrategy[Cut | None]) -> st.SearchStrategy[dict[str, Cut | None]]:
    choice = {"whole": st.none(), "norm": st.sampled_from([None, Cut(0, 0, 2), Cut(0, 1, 2)]), "scalar": st.none()}
    return st.fixed_dictionaries({}, optional={**choice, "columns": how, "rows": st.sampled_from([None, Cut(1, 0, 2), Cut(1, 1, 2), Cut(1, 3, 4)]), "deep": how})  # fmt: skip


@given(
    st.lists(cuts_of_all(CUTS), min_size=1, max_size=4),
    st.integers(1, 200),
    st.integers(1, 64),
    st.sampled_from([1, 4, 10, 1000]),
)
def test_each_gets_what_it_would_alone(cuts: list[dict[str, Cut | None]], chunk: int, step: int, wide: int) -> None:
    plans = [planned(each) for each in cuts]
    assert together(plans, chunk, step, wide) == [alone(plan) for plan in plans]


def test_what_all_want_is_there_once() -> None:
    plans = [planned(dict.fromkeys(SHAPES))] * 3
    layout = SpreadMap([plan.pieces for plan in plans]).layout(0, len(DATA))
    assert layout.size == sum(plans[0].sizes)
    assert all(len(part.places) == 3 for part in layout.parts)


@pytest.mark.parametrize("dimension", [0, 1])
def test_slices_take_as_much_as_the_whole(dimension: int) -> None:
    plans = [planned({"columns": Cut(dimension, part, 2)}) for part in range(2)]
    layout = SpreadMap([plan.pieces for plan in plans]).layout(0, len(DATA))
    assert layout.size == 8 * 6 * 4
    assert [len(part.places) for part in layout.parts] == [1, 1]


def test_rows_that_two_have_alike_are_there_once() -> None:
    """As of heads of keys and values that are fewer than ranks, along another dimension than the first."""
    plans = [planned({"columns": Cut(1, part, 2)}) for part in (0, 0, 1)]
    layout = SpreadMap([plan.pieces for plan in plans]).layout(0, len(DATA))
    assert layout.size == 8 * 6 * 4
    assert sorted(len(part.places) for part in layout.parts) == [1, 2]


def test_wide_rows_lie_as_they_came() -> None:
    """And nothing but the bytes between them takes room."""
    plans = [planned({"columns": Cut(1, part, 2)}) for part in range(2)]
    places = SpreadMap([plan.pieces for plan in plans], 12)
    layout = places.layout(0, len(DATA))
    assert layout.size == 8 * 6 * 4
    assert sorted((part.start, part.row, part.rows, part.stride) for part in layout.parts) == [
        (0, 12, 8, 24),
        (12, 12, 8, 24),
    ]
    begin = plans[0].pieces[0].source
    cut = places.layout(begin + 5, begin + 24 * 3 + 20)
    assert cut.size == 24 * 3 + 15
    assert sorted((part.start, part.row, part.rows) for part in cut.parts) == [
        (0, 7, 1),
        (7, 12, 3),
        (19, 12, 3),
        (79, 8, 1),
    ]
    assert [stretch.start for stretch in cut.stretches] == [0]


def test_neighbours_are_one_part() -> None:
    pieces = [Piece(0, 10, 10, 1, 0, 0), Piece(10, 10, 10, 1, 0, 10), Piece(20, 5, 5, 1, 1, 0)]
    layout = SpreadMap([pieces]).layout(0, 30)
    assert [(part.start, part.row) for part in layout.parts] == [(0, 20), (20, 5)]
    assert [(each.begin, each.end, each.start) for each in layout.stretches] == [(0, 25, 0), (25, 30, None)]


def test_nothing_is_wanted() -> None:
    layout = SpreadMap([[], [Piece(100, 1, 1, 1, 0, 0)]]).layout(0, 30)
    assert (layout.size, layout.parts) == (0, ())
    assert [(each.begin, each.end, each.start) for each in layout.stretches] == [(0, 30, None)]
