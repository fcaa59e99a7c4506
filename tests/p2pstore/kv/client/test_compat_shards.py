"""What reads with a target find: as arrays of NumPy in place of PyTorch's tensors, which need not be installed."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from p2pstore.kv.client import compat_shards
from p2pstore.kv.client.compat import MooncakeDistributedStore, ReadTarget
from p2pstore.kv.client.layouts import Manifest, ParallelAxis
from p2pstore.kv.client.tensors import HEADER_BYTES, TENSOR, Axis, Shard, TensorHeader, as_numpy, described
from tests.p2pstore.kv.client.test_compat_parallel import WHOLE, writer
from tests.p2pstore.kv.client.test_layouts import axis, spread


@pytest.fixture
def store(compat_store: MooncakeDistributedStore, monkeypatch: pytest.MonkeyPatch) -> MooncakeDistributedStore:
    def as_array(header: TensorHeader, data: memoryview, *, in_place: bool) -> Any:
        assert in_place
        return as_numpy(header, data)

    monkeypatch.setattr(compat_shards, "as_torch", as_array)
    return compat_store


def target(mode: str, *axes: ParallelAxis) -> ReadTarget:
    made = ReadTarget()
    made.mode = mode
    made.parallelism = spread(*axes) if axes else None
    return made


def tp(rank: int, size: int, split: int = 1) -> ParallelAxis:
    return axis("tp", rank, size, split_dim=split)


def put_shards(store: MooncakeDistributedStore, key: str) -> None:
    for rank, part in enumerate(np.split(WHOLE, 3, axis=1)):
        assert store.put_tensor_with_parallelism(key, np.ascontiguousarray(part), spread(tp(rank, 3))) == 0


def test_a_shard_another_part_and_the_whole(store: MooncakeDistributedStore, key: str) -> None:
    put_shards(store, key)
    for rank, part in enumerate(np.split(WHOLE, 3, axis=1)):
        assert store.get_tensor_with_parallelism(key, target("shard", tp(rank, 3))).tolist() == part.tolist()
    for rank, part in enumerate(np.split(WHOLE, 2, axis=1)):
        assert store.get_tensor_with_parallelism(key, target("shard", tp(rank, 2))).tolist() == part.tolist()
    assert store.get_tensor_with_parallelism(key, target("full", tp(0, 3))).tolist() == WHOLE.tolist()
    assert store.get_tensor_with_parallelism(key, target("full", tp(0, 3, 0))) is None
    assert "is split along number 1, and not along number 0" in store.last_error
    assert store.get_tensor_with_parallelism(key, target("shard", tp(0, 4))) is None
    assert "6 cannot be split into 4 equal parts" in store.last_error


def test_without_its_manifest_the_first_shard_tells(store: MooncakeDistributedStore, key: str) -> None:
    put_shards(store, key)
    assert store.remove(f"{key}__parallelism_manifest", force=True) == 0
    assert store.get_tensor_with_parallelism(key, target("full", tp(0, 2))).tolist() == WHOLE.tolist()
    assert store.remove(f"{key}_tp_2", force=True) == 0
    assert store.get_tensor_with_parallelism(key, target("full", tp(0, 3))) is None
    assert f"{key}_tp_2" in store.last_error, "the key that is missing is named"


def test_a_shard_that_belongs_to_another_tensor_is_refused(store: MooncakeDistributedStore, key: str) -> None:
    put_shards(store, key)
    other = np.zeros((4, 2, 2), np.int16)
    assert store.upsert_tensor_with_parallelism(key, other, spread(tp(1, 3))) == 0
    manifest = Manifest("int32", WHOLE.shape, 1, 3).pack()
    assert store.upsert(f"{key}__parallelism_manifest", manifest) == 0
    assert store.get_tensor_with_parallelism(key, target("full", tp(0, 3))) is None
    assert "is no part of that tensor" in store.last_error


@pytest.mark.parametrize(
    "shard",
    [
        None,
        Shard((4, 6, 2), (Axis(TENSOR, 0, 0, 1),)),
        Shard((4, -6, 2), (Axis(TENSOR, 0, 3, 1),)),
    ],
)
def test_a_first_shard_that_is_none_or_makes_no_sense_is_refused(
    store: MooncakeDistributedStore, key: str, shard: Shard | None
) -> None:
    value = TensorHeader("int8", (1, 1, 1), shard).pack()[:HEADER_BYTES] + b"\1"
    assert store.put(f"{key}_tp_0", value) == 0
    assert store.get_tensor_with_parallelism(key, target("full", tp(0, 3))) is None
    assert f"'{key}_tp_0' is no part of a tensor" in store.last_error


def test_several_axes(store: MooncakeDistributedStore, key: str) -> None:
    stage = axis("pp", 1, 2, stage_id=4)
    for rank in range(2):
        assert store.put_tensor_with_parallelism(key, WHOLE, spread(stage, tp(rank, 2))) == 0
    found = store.get_tensor_with_parallelism(key, target("shard", tp(1, 2), stage))
    assert found.tolist() == WHOLE[:, 3:].tolist()
    assert store.get_tensor_with_parallelism(key, target("full", stage, tp(0, 2))).tolist() == WHOLE.tolist()
    assert store.get_tensor_with_parallelism(key, target("shard", tp(2, 3), stage)).tolist() == WHOLE[:, 4:].tolist()
    other = axis("pp", 0, 2, stage_id=4)
    assert store.get_tensor_with_parallelism(key, target("full", other, tp(0, 2))) is None
    assert store.get_tensor_with_parallelism(key, target("shard", other)) is None
    assert store.get_tensor_with_parallelism(key, target("full", stage)) is None
    assert "joined along tp" in store.last_error
    assert store.get_tensor_with_parallelism(key, target("as_stored", stage)) is None
    assert "as_stored takes no parallelism" in store.last_error


def test_what_writers_put_and_what_is_no_shard(store: MooncakeDistributedStore, key: str) -> None:
    for rank in range(2):
        assert store.put_tensor_with_parallelism(key, WHOLE, writer_partition=writer(rank, 2, 0)) == 0
    assert store.get_tensor_with_parallelism(key, target("full")).tolist() == WHOLE.tolist()
    assert store.get_tensor_with_parallelism(key, target("shard", tp(1, 2, 0))).tolist() == WHOLE[2:].tolist()
    assert store.put_tensor(f"{key}x", WHOLE) == 0
    targets = [None, target("as_stored"), target("full")]
    for found in store.batch_get_tensor_with_parallelism([f"{key}x"] * 3, targets):
        assert found.tolist() == WHOLE.tolist()
    assert store.batch_get_tensor_with_parallelism([f"no {key}"]) == [None]
    assert store.batch_get_tensor_with_parallelism([key], []) == [None]


def test_into_memory_of_the_callers(store: MooncakeDistributedStore, key: str) -> None:
    put_shards(store, key)
    size = HEADER_BYTES + WHOLE.nbytes
    memory = (ctypes.c_ubyte * size)()
    at = ctypes.addressof(memory)
    targets = [target("full", tp(0, 3)), target("shard", tp(1, 3))]
    for wanted, expected in zip(targets, (WHOLE, WHOLE[:, 2:4]), strict=True):
        found = store.get_tensor_with_parallelism_into(key, at, size, wanted)
        assert found.tolist() == expected.tolist()
        assert found.ctypes.data == at + HEADER_BYTES, "it is the caller's own memory"
        assert as_numpy(*described(key, memoryview(memory))).tolist() == expected.tolist()
    assert store.get_tensor_with_parallelism_into(key, at, size - 1, targets[0]) is None
    assert f"needs {size} bytes, and there are {size - 1}" in store.last_error
    found = store.batch_get_tensor_with_parallelism_into([key, f"no {key}"], [at, at], [size, size], [targets[1]] * 2)
    assert (found[0].shape, found[1]) == ((4, 2, 2), None)
    assert store.batch_get_tensor_with_parallelism_into([key], [at], []) == [None]
    assert store.get_tensor_with_parallelism_into(key, 0, size) is None
