"""The helpers that upstream's own Python modules call."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from p2pstore.integrations import upstream_store
from p2pstore.kv.client import compat_codec
from p2pstore.kv.client.compat_codec import CODEC, deserialize_tensor, serialize_tensor, tensor_metadata_size
from p2pstore.kv.client.tensors import TensorHeader, as_numpy, described


def test_a_tensor_is_told_by_its_header_and_where_it_lies() -> None:
    tensor = np.arange(6, dtype=np.int16).reshape(2, 3)
    header, at, size, owner = serialize_tensor(tensor)
    assert (len(header), size, owner is tensor) == (tensor_metadata_size(), 12, True)
    value = header + ctypes.string_at(at, size)
    assert as_numpy(*described("k", value)).tolist() == tensor.tolist()


def test_what_is_none_is_refused_as_upstream_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unsupported tensor for Mooncake tensor serialization: "):
        serialize_tensor([1, 2])
    with pytest.raises(ValueError, match="invalid serialized Mooncake tensor payload: "):
        deserialize_tensor(b"none")

    def as_array(header: TensorHeader, data: memoryview) -> Any:
        return as_numpy(header, data)

    monkeypatch.setattr(compat_codec, "as_torch", as_array)
    header, at, size, _ = serialize_tensor(np.arange(3))
    assert deserialize_tensor(header + ctypes.string_at(at, size)).tolist() == [0, 1, 2]


def test_they_are_where_upstreams_modules_look_for_them() -> None:
    exported = upstream_store.exported()
    assert {name: exported[name] for name in CODEC} == CODEC


def test_with_pytorch_tensors_come_back() -> None:
    torch = pytest.importorskip("torch", reason="NO TEST WITH PYTORCH: it is not installed")
    tensor = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    header, at, size, _ = serialize_tensor(tensor.t())
    assert torch.equal(deserialize_tensor(header + ctypes.string_at(at, size)), tensor.t())
