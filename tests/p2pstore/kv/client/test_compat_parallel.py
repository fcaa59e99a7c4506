"""What ``*_with_parallelism`` puts, with arrays of NumPy; beside the real class in ``tests/interop/test_layouts.py``."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from p2pstore.kv.client.compat import MooncakeDistributedStore, ReplicateConfig
from p2pstore.kv.client.layouts import Manifest
from p2pstore.kv.client.tensors import TensorHeader, as_numpy, described
from tests.p2pstore.kv.client.test_layouts import axis, spread

WHOLE = np.arange(48, dtype=np.int32).reshape(4, 6, 2)


@pytest.fixture
def store(compat_store: MooncakeDistributedStore) -> MooncakeDistributedStore:
    return compat_store


def array(store: MooncakeDistributedStore, key: str) -> Any:
    return as_numpy(*described(key, store.get(key)))


def writer(rank: int, size: int, split: int) -> Any:
    return SimpleNamespace(rank=rank, size=size, split_dim=split)


def test_along_one_axis_the_shard_is_given(store: MooncakeDistributedStore, key: str) -> None:
    for rank, part in enumerate(np.split(WHOLE, 3, axis=1)):
        layout = spread(axis("tp", rank, 3, split_dim=1))
        assert store.put_tensor_with_parallelism(key, np.ascontiguousarray(part), layout) == 0
        assert array(store, f"{key}_tp_{rank}").tolist() == part.tolist()
    manifest = Manifest.read(store.get(f"{key}__parallelism_manifest"))
    assert manifest == Manifest("int32", (4, 6, 2), 1, 3)


def test_along_several_it_is_cut_out_of_the_whole(store: MooncakeDistributedStore, key: str) -> None:
    layout = spread(axis("dp", 1, 2), axis("tp", 1, 2, split_dim=0))
    assert store.put_tensor_with_parallelism(key, WHOLE, layout) == 0
    assert array(store, f"{key}__dp_1of2__tp_1of2_sd0").tolist() == WHOLE[2:].tolist()
    assert store.put_tensor_with_parallelism(key, WHOLE, spread(axis("pp", 0, 2, stage_id=3))) == 0
    assert array(store, f"{key}__pp_0of2_sid3").tolist() == WHOLE.tolist()


def test_writers_put_their_own_parts(store: MooncakeDistributedStore, key: str) -> None:
    writers = [writer(0, 2, 0), writer(1, 2, 0)]
    assert store.batch_put_tensor_with_parallelism([key, key], [WHOLE, WHOLE], None, None, writers) == [0, 0]
    assert array(store, f"{key}__writer_1of2_sd0").tolist() == WHOLE[2:].tolist()
    assert Manifest.read(store.get(f"{key}__writer_manifest")) == Manifest("int32", (4, 6, 2), 0, 2)
    assert store.put_tensor_with_parallelism(key, WHOLE, spread(axis("dp")), None, writer(0, 2, 0)) == -600
    assert "name one of them" in store.last_error
    assert store.put_tensor_with_parallelism(key, WHOLE, None, None, writer(0, 5, 0)) == -600
    assert "cannot be split into 5 equal parts" in store.last_error


def test_by_address_the_whole_tensor_is_given(store: MooncakeDistributedStore, key: str) -> None:
    data = TensorHeader.of(WHOLE).pack() + WHOLE.tobytes()
    memory = (ctypes.c_ubyte * len(data))(*data)
    at = ctypes.addressof(memory)
    layouts = [None, spread(axis("tp", 0, 3, split_dim=1)), spread(axis("tp", 0, 2, split_dim=7))]
    names = [key, f"{key}s", f"{key}t"]
    assert store.batch_put_tensor_with_parallelism_from(names, [at] * 3, [len(data)] * 3, layouts) == [0, 0, -600]
    assert array(store, key).tolist() == WHOLE.tolist()
    for rank, part in enumerate(np.split(WHOLE, 3, axis=1)):
        assert array(store, f"{key}s_tp_{rank}").tolist() == part.tolist()
    assert store.put_tensor_with_parallelism_from(key, at, 9, None) == -600
    assert store.put_tensor_with_parallelism_from(f"{key}w", at, len(data), writer_partition=writer(0, 2, 2)) == 0
    assert store.batch_put_tensor_with_parallelism_from([key], [at], []) == [-600]


def test_what_is_there_is_kept_or_replaced(store: MooncakeDistributedStore, key: str) -> None:
    layout, other = spread(axis("dp")), WHOLE + 1
    assert store.put_tensor_with_parallelism(key, WHOLE, layout) == 0
    assert store.put_tensor_with_parallelism(key, other, layout) == 0
    assert array(store, f"{key}__dp_0of2").tolist() == WHOLE.tolist()
    assert store.upsert_tensor_with_parallelism(key, other, layout) == 0
    assert array(store, f"{key}__dp_0of2").tolist() == other.tolist()
    assert store.batch_upsert_tensor_with_parallelism([key], [WHOLE], [layout]) == [0]
    data = TensorHeader.of(other).pack() + other.tobytes()
    memory = (ctypes.c_ubyte * len(data))(*data)
    at = ctypes.addressof(memory)
    assert store.upsert_tensor_with_parallelism_from(key, at, len(data), layout) == 0
    assert array(store, f"{key}__dp_0of2").tolist() == other.tolist()
    assert store.batch_upsert_tensor_with_parallelism_from([key], [at], [len(data)]) == [0]


def test_each_key_has_its_group(store: MooncakeDistributedStore, key: str) -> None:
    config = ReplicateConfig()
    config.group_ids = ["a", "b"]
    names = [f"{key}a", f"{key}b"]
    writers = [writer(0, 2, 0)] * 2
    assert store.batch_put_tensor_with_parallelism(names, [WHOLE, WHOLE], None, config, writers) == [0, 0]
    config.group_ids = ["a", "b", "c"]
    assert store.batch_put_tensor_with_parallelism([f"{key}c"] * 2, [WHOLE] * 2, None, config) == [-600, -600]
    assert store.batch_put_tensor_with_parallelism(names, [WHOLE]) == [-600, -600]
    assert store.batch_put_tensor_with_parallelism(names, [WHOLE] * 2, [None]) == [-600, -600]
