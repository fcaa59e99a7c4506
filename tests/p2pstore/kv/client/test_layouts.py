"""Axes, keys, manifests, and how parts make up a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pstore.errors import UsageError
from p2pstore.kv.client import layouts
from p2pstore.kv.client.layouts import Manifest, ParallelAxis, ReadTarget, TensorParallelism, axes_of, key_of
from p2pstore.kv.client.tensors import HEADER_BYTES, TENSOR, Axis, Shard, TensorHeader, described


def axis(kind: str, rank: int = 0, size: int = 2, **more: Any) -> ParallelAxis:
    made = ParallelAxis()
    made.kind, made.rank, made.size = kind, rank, size
    for name, value in more.items():
        setattr(made, name, value)
    return made


def spread(*axes: ParallelAxis) -> TensorParallelism:
    made = TensorParallelism()
    made.axes = list(axes)
    return made


def test_keys_are_upstreams() -> None:
    tp, dp = axis("TP", 1, 2, split_dim=3), axis("dp", 0, 4)
    ep, pp = axis("ep", 1, 8, expert_id=7), axis("pp", 2, 3, stage_id=5)
    assert key_of("k", axes_of(spread(tp))) == "k_tp_1"
    assert key_of("k", axes_of(spread(dp))) == "k__dp_0of4"
    assert key_of("k", axes_of(spread(pp, ep, tp, dp))) == "k__dp_0of4__tp_1of2_sd3__ep_1of8_eid7__pp_2of3_sid5"
    assert layouts.writer_key("k", Axis(TENSOR, 1, 2, 0)) == "k__writer_1of2_sd0"
    assert layouts.manifest_key("k") == "k__parallelism_manifest"
    assert layouts.writers_manifest_key("k") == "k__writer_manifest"


@pytest.mark.parametrize(
    ("axes", "why"),
    [
        ((), "has one to 4 axes, and not 0"),
        ((axis("dp"),) * 5, "and not 5"),
        ((axis("dp"), axis("DP")), "two axes of one kind"),
        ((axis("xp"),), "and not 'xp'"),
        ((axis("dp", 2, 2),), "rank 2 of 2"),
        ((axis("dp", -1, 2),), "rank -1 of 2"),
        ((axis("dp", 0, 0),), "rank 0 of 0"),
        ((axis("tp"),), "split_dim is None"),
        ((axis("dp", split_dim=0),), "split_dim is 0"),
        ((axis("ep"),), "must have its expert_id"),
        ((axis("pp"),), "must have its stage_id"),
    ],
)
def test_what_makes_no_sense_is_told(axes: tuple[ParallelAxis, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        axes_of(spread(*axes))


def test_a_target_takes_upstreams_modes_alone() -> None:
    target = ReadTarget()
    assert (target.mode, target.parallelism) == ("as_stored", None)
    target.mode = "FULL"
    assert target.mode == "full"
    with pytest.raises(RuntimeError, match="Unsupported ReadTarget mode"):
        target.mode = "half"


@pytest.mark.parametrize("writer", [object(), axis("tp", 2, 2, split_dim=0), axis("tp", 0, 2, split_dim=-1)])
def test_a_writers_partition_that_makes_no_sense_is_told(writer: object) -> None:
    with pytest.raises(UsageError, match="a writer_partition has"):
        layouts.writer_axis(writer)


def test_a_manifest_comes_back_and_other_bytes_are_none() -> None:
    manifest = Manifest("bfloat16", (4, 6), 1, 3)
    data = manifest.pack()
    assert len(data) == 96
    assert Manifest.read(data) == manifest
    assert Manifest.of(TensorHeader("bfloat16", (4, 6)).cut_out((Axis(TENSOR, 0, 3, 1),))) == manifest
    assert Manifest.of(TensorHeader("int8", (4,))) is None
    for whole, parts, split in (((4, 6), 0, 1), ((4, 6), 3, 2), ((4, -6), 3, 1), ((), 1, 0)):
        shard = Shard(whole, (Axis(TENSOR, 0, parts, split),))
        assert Manifest.of(TensorHeader("int8", (1,) * len(whole), shard)) is None
    for place in (0, 4, 6, 11, 15, 19, 23):  # magic, version, length, type, dimensions, split, parts
        assert Manifest.read(data[:place] + b"\xff" + data[place + 1 :]) is None, place
    assert Manifest.read(data[:-1]) is None


@given(st.binary(max_size=100))
def test_any_bytes_are_a_manifest_or_none(data: bytes) -> None:
    found = Manifest.read(data)
    assert found is None or Manifest.read(found.pack()) == found


def test_a_shards_header_says_where_it_stands() -> None:
    axes = (Axis(3, 2, 3, -1, 5), Axis(TENSOR, 1, 2, 1))
    header = TensorHeader("int8", (2, 4)).cut_out(axes)
    found, data = described("k", header.pack() + bytes(4))
    assert (found, len(data)) == (header, 4)
    assert (found.shape, found.shard and found.shard.whole) == ((2, 2), (2, 4))
    with pytest.raises(UsageError, match="spread along 5 axes"):
        described("k", header.pack()[:168] + b"\5" + header.pack()[169:] + bytes(4))


def test_a_part_of_its_own_is_one_of_a_larger_tensor() -> None:
    part = layouts.of_shard(TensorHeader("int8", (2, 3)), (Axis(TENSOR, 1, 4, 0),))
    assert (part.shape, part.shard and part.shard.whole) == ((2, 3), (8, 3))
    with pytest.raises(UsageError, match="no part along number 2"):
        layouts.of_shard(TensorHeader("int8", (2, 3)), (Axis(TENSOR, 0, 2, 2),))


@settings(deadline=None)
@given(st.data())
def test_parts_make_up_any_other_part(data: st.DataObject) -> None:
    """As NumPy's."""
    dims = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    split = data.draw(st.integers(0, len(dims) - 1))
    parts, wanted = (data.draw(st.integers(1, 4)) for _ in range(2))
    dims[split] *= parts * wanted
    rank = data.draw(st.integers(0, wanted - 1))
    tensor = np.arange(np.prod(dims), dtype=np.int16).reshape(dims)
    expected = np.split(tensor, wanted, axis=split)[rank]
    sources = [each.tobytes() for each in np.split(tensor, parts, axis=split)]
    made = bytearray(b"\xff" * expected.nbytes)
    for which, source, to, length in layouts.copies(dims, split, 2, parts, layouts.extent(dims[split], rank, wanted)):
        made[to : to + length] = sources[which][source : source + length]
    assert bytes(made) == expected.tobytes()


def test_what_has_no_equal_parts_is_told() -> None:
    with pytest.raises(UsageError, match="5 cannot be split into 2 equal parts"):
        layouts.extent(5, 0, 2)
    assert HEADER_BYTES == 304
