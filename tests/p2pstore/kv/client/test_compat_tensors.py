"""The compatible class's tensors: of NumPy everywhere, of PyTorch where it is installed."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from p2pstore.kv.client.compat import MooncakeDistributedStore, ReplicateConfig
from p2pstore.kv.client.tensors import HEADER_BYTES, TensorHeader, as_numpy, described


@pytest.fixture
def store(compat_store: MooncakeDistributedStore) -> MooncakeDistributedStore:
    return compat_store


class Laid:
    """A tensor as it lies in memory that calls are told of by address."""

    def __init__(self, tensor: Any = None, size: int = 0) -> None:
        data = b"" if tensor is None else TensorHeader.of(tensor).pack() + tensor.tobytes()
        self.size = size or len(data)
        self.data = (ctypes.c_ubyte * self.size)(*data)
        self.ptr = ctypes.addressof(self.data)


def numbers(*shape: int) -> Any:
    return np.arange(np.prod(shape), dtype=np.int32).reshape(shape)


def array(store: MooncakeDistributedStore, key: str) -> Any:
    return as_numpy(*described(key, store.get(key)))


def test_whole_tensors_and_what_is_none(store: MooncakeDistributedStore, key: str) -> None:
    one, other = numbers(2, 3), numbers(4)
    assert store.put_tensor(key, one) == 0
    assert store.put_tensor(key, other) == 0, "a key that is there keeps its value"
    assert array(store, key).tolist() == one.tolist()
    assert store.upsert_tensor(key, other) == 0
    assert array(store, key).tolist() == other.tolist()
    names = [key + "a", key + "b", key + "c"]
    assert store.batch_put_tensor(names, [one, [1, 2], np.asfortranarray(one)]) == [0, -600, -600]
    assert store.batch_upsert_tensor(names[:2], [other, one]) == [0, 0]
    assert array(store, names[0]).tolist() == other.tolist()
    assert store.batch_put_tensor(names, [one]) == [-600] * 3
    assert store.upsert_pub_tensor(key, one, ReplicateConfig()) == 0
    assert store.batch_upsert_pub_tensor([key], [other], ReplicateConfig()) == [0]
    assert store.get_tensor("no " + key) is None


def test_equal_parts_have_keys_of_their_own(store: MooncakeDistributedStore, key: str) -> None:
    whole = numbers(4, 6)
    assert store.put_tensor_with_tp(key, whole, tp_size=3, split_dim=1) == 0
    assert store.is_exist(key) == 0
    for rank, part in enumerate(np.split(whole, 3, axis=1)):
        assert array(store, f"{key}_tp_{rank}").tolist() == part.tolist()
    assert store.put_tensor_with_tp(key + "2", whole, tp_size=4, split_dim=1) == -600
    assert "cannot be split into 4 equal parts" in store.last_error
    assert store.put_tensor_with_tp(key + "one", whole) == 0
    assert array(store, key + "one").tolist() == whole.tolist(), "of one part it is the tensor itself"
    config = ReplicateConfig()
    config.group_ids = ["a", "b"]
    names = [key + "3", key + "4"]
    assert store.batch_pub_tensor_with_tp(names, [whole, numbers(5, 5)], config, tp_size=2) == [0, -600]
    config.group_ids = ["a"]
    assert store.pub_tensor_with_tp(key + "5", whole, config, tp_size=2) == 0
    assert store.batch_is_exist([f"{key}3_tp_1", f"{key}4_tp_0", f"{key}5_tp_1"]) == [1, 0, 1]
    assert store.batch_put_tensor_with_tp(names, [whole], tp_size=2) == [-600, -600]


def test_tensors_by_address(store: MooncakeDistributedStore, key: str) -> None:
    laid, other = Laid(numbers(4, 2)), Laid(numbers(8))
    assert store.put_tensor_from(key, laid.ptr, laid.size) == 0
    assert array(store, key).tolist() == numbers(4, 2).tolist()
    assert store.upsert_tensor_from(key, other.ptr, other.size) == 0
    assert array(store, key).tolist() == numbers(8).tolist()
    names = [key + "a", key + "b"]
    assert store.batch_put_tensor_from(names, [laid.ptr, laid.ptr], [laid.size, HEADER_BYTES - 1]) == [0, -600]
    assert "is no tensor" in store.last_error
    assert store.batch_upsert_tensor_from(names, [other.ptr, laid.ptr], [other.size, laid.size]) == [0, 0]
    assert store.batch_put_tensor_from(names, [laid.ptr], [laid.size]) == [-600, -600]
    assert store.put_tensor_from(key + "none", 0, laid.size) == -600
    assert store.put_tensor_with_tp_from(key + "s", laid.ptr, laid.size, tp_size=2) == 0
    assert array(store, key + "s_tp_1").tolist() == numbers(4, 2)[2:].tolist()
    assert store.batch_put_tensor_with_tp_from([key + "t"], [laid.ptr], [laid.size], tp_size=2, split_dim=1) == [0]
    assert array(store, key + "t_tp_0").tolist() == numbers(4, 2)[:, :1].tolist()


def test_without_a_gpu_what_needs_one_is_refused_with_what_to_do(store: MooncakeDistributedStore, key: str) -> None:
    assert store.put_tensor(key, numbers(3)) == 0
    assert store.get_tensor_into_cuda(key, numbers(3)) == -600
    assert "device='cuda'" in store.last_error
    assert store.batch_get_tensor_into_cuda([key, key], [numbers(3)]) == [-600, -600]


def test_parts_come_back_as_tensors(store: MooncakeDistributedStore, key: str, torch: Any) -> None:
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6).to(torch.bfloat16)
    assert store.put_tensor_with_tp(key, whole, 0, 3, 1) == 0
    parts = [store.get_tensor_with_tp(key, rank, 3, 1) for rank in range(3)]
    assert torch.equal(torch.cat(parts, 1), whole)
    assert store.get_tensor_with_tp(key, 3, 3, 1) is None
    assert store.batch_get_tensor_with_tp([key, "no " + key], 1, 3)[1] is None
    room = Laid(size=1000)
    found = store.get_tensor_with_tp_into(key, room.ptr, room.size, 1, 3)
    assert torch.equal(found, parts[1])
    assert found.data_ptr() == room.ptr + HEADER_BYTES, "it is the caller's own memory"
    assert store.batch_get_tensor_with_tp_into([key, key], [room.ptr, 0], [1000, 0], 0, 3)[1] is None
    assert store.get_tensor_into(key, room.ptr, room.size) is None
    assert store.batch_get_tensor_into([key], [], []) == [None]


def test_without_the_library_files_are_refused_with_its_name(
    store: MooncakeDistributedStore, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    assert store.load_tensor_from_safetensor(key, "x") is None
    assert "this needs safetensors.torch" in store.last_error
