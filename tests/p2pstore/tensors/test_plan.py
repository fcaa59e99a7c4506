"""Where the bytes of tensors go: compared with NumPy's slices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.errors import UsageError
from p2pstore.tensors.header import Tensor, parse_header
from p2pstore.tensors.plan import Cut, Map, Piece, Plan, left_out, make_plan, rows_of
from tests.p2pstore.samples import manifest_of
from tests.p2pstore.tensors.checkpoints import Shapes, file_of

KINDS = {"U8": np.uint8, "F16": np.float16, "F32": np.float32, "F64": np.float64}


def carry_out(plan: Plan, data: bytes, step: int) -> list[bytearray]:
    """Put an object's bytes where the plan says, ``step`` of them at a time."""
    areas = [bytearray(size) for size in plan.sizes]
    places = Map(plan.pieces)
    for begin in range(0, len(data), step):
        at = begin
        for segment in places.segments(begin, min(begin + step, len(data))):
            assert segment.begin == at
            at = segment.end
            if segment.piece is not None:
                part = data[segment.begin : segment.end]
                for low, high, to in rows_of(segment.piece, segment.begin, segment.end):
                    areas[segment.piece.area][to : to + high - low] = part[low:high]
        assert at == min(begin + step, len(data))
    return areas


def tensors_of(plan: Plan, areas: list[bytearray]) -> dict[str, np.ndarray[Any, Any]]:
    return {p.name: np.ndarray(p.shape, KINDS[p.dtype], areas[p.area], p.offset) for p in plan.places}


def whole(data: bytes, tensor: Tensor) -> np.ndarray[Any, Any]:
    return np.frombuffer(data[tensor.begin : tensor.end], KINDS[tensor.dtype]).reshape(tensor.shape)


SHAPES: Shapes = {
    "a": ("F32", (4, 6)),
    "byte": ("U8", (3,)),
    "b": ("F32", (2, 4, 2)),
    "none": ("F64", (0, 4)),
    "scalar": ("F16", ()),
    "c": ("F16", (8,)),
}


def planned(files: list[bytes], cuts: dict[str, Cut], only: set[str] | None = None) -> tuple[Plan, dict[str, Any]]:
    wanted, expected, offsets, at = [], {}, [], 0
    for number, data in enumerate(files):
        offsets.append(at)
        at += len(data)
        for tensor in parse_header(data, len(data)).tensors:
            if only is None or tensor.name in only:
                wanted.append((number, tensor, cuts.get(tensor.name)))
                found = whole(data, tensor)
                if tensor.name in cuts:
                    cut = cuts[tensor.name]
                    found = np.split(found, cut.parts, cut.dimension)[cut.part]
                expected[tensor.name] = found
    return make_plan(wanted, offsets), expected


@given(
    st.integers(1, 400),
    st.sets(st.sampled_from([*SHAPES])),
    st.dictionaries(st.sampled_from(["a", "b"]), st.builds(Cut, st.integers(0, 1), st.integers(0, 1), st.just(2))),
)
def test_bytes_go_where_tensors_are_to_lie(step: int, only: set[str], cuts: dict[str, Cut]) -> None:
    files = [file_of(SHAPES, seed=1, pad=1), file_of({f"{n}2": kind for n, kind in SHAPES.items()}, seed=2)]
    names = only | {f"{name}2" for name in only}
    plan, expected = planned(files, {n: cut for n, cut in cuts.items() if n in only}, names)
    found = tensors_of(plan, carry_out(plan, b"".join(files), step))
    assert set(found) == names
    for name, tensor in found.items():
        assert tensor.flags.aligned
        np.testing.assert_array_equal(
            tensor.view(np.uint8) if tensor.shape else tensor,
            expected[name].view(np.uint8) if tensor.shape else expected[name],
        )


@pytest.mark.parametrize(("dimension", "parts"), [(0, 4), (1, 3), (2, 2), (2, 4)])
def test_each_rank_gets_its_slice(dimension: int, parts: int) -> None:
    data = file_of({"t": ("F32", (4, 3, 4))})
    for part in range(parts):
        plan, expected = planned([data], {"t": Cut(dimension, part, parts)})
        found = tensors_of(plan, carry_out(plan, data, 7))
        np.testing.assert_array_equal(found["t"].view(np.uint8), np.ascontiguousarray(expected["t"]).view(np.uint8))


def test_what_follows_in_the_file_follows_in_memory() -> None:
    data = file_of({"a": ("F32", (5,)), "b": ("F32", (7,)), "c": ("U8", (1,)), "d": ("F32", (2,))})
    plan, _ = planned([data], {})
    assert len(plan.pieces) == 2
    assert [place.offset for place in plan.places] == [0, 20, 48, 52]
    assert plan.sizes == (60,)


@pytest.mark.parametrize(
    ("kind", "cut", "sentence"),
    [
        (("F32", (4, 3)), Cut(2, 0, 2), "has no dimension 2"),
        (("F32", ()), Cut(0, 0, 2), "has no dimension 0"),
        (("F32", (4, 3)), Cut(1, 0, 2), "3, is no multiple of 2"),
        (("F4", (4, 2)), Cut(1, 0, 2), "ends inside a byte"),
    ],
)
def test_a_cut_that_cannot_be(kind: tuple[str, tuple[int, ...]], cut: Cut, sentence: str) -> None:
    data = file_of({"t": kind})
    tensor = parse_header(data, len(data)).tensors[0]
    with pytest.raises(UsageError, match=sentence):
        make_plan([(0, tensor, cut)], [0])


def test_packed_numbers_are_cut_at_bytes() -> None:
    data = file_of({"t": ("F4", (2, 8))})
    tensor = parse_header(data, len(data)).tensors[0]
    plan = make_plan([(0, tensor, Cut(1, 1, 2))], [0])
    body = data[tensor.begin :]
    assert carry_out(plan, data, 3) == [bytearray(body[2:4] + body[6:8])]
    assert plan.places[0].shape == (2, 4)


def test_chunks_of_which_nothing_is_needed() -> None:
    manifest = manifest_of({"": bytes(100)}, 10)
    one = Piece(source=12, row=9, stride=9, rows=1, area=0, to=0)
    assert list(left_out(manifest, [one])) == [0, 3, 4, 5, 6, 7, 8, 9]
    near = Piece(source=5, row=2, stride=8, rows=4, area=0, to=0)
    assert list(left_out(manifest, [near])) == [4, 5, 6, 7, 8, 9]
    far = Piece(source=5, row=2, stride=30, rows=3, area=0, to=0)
    assert list(left_out(manifest, [far])) == [1, 2, 4, 5, 7, 8, 9]
    assert left_out(manifest, []).full
