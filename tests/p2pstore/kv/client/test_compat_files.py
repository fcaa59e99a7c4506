"""Tensors in files of safetensors."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from engine.files.system import system
from p2pstore.kv.client.compat import MooncakeDistributedStore


@pytest.fixture
def store(compat_store: MooncakeDistributedStore) -> MooncakeDistributedStore:
    return compat_store


def test_files_of_safetensors(
    store: MooncakeDistributedStore, key: str, torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors", reason="NO TEST WITH SAFETENSORS: it is not installed")
    tensor = torch.arange(6).reshape(2, 3)
    assert store.put_tensor(key, tensor) == 0
    file = str(tmp_path / "one.safetensors")
    assert store.save_tensor_to_safetensor(key, file) == 0
    assert store.save_tensor_to_safetensor("no " + key, file) == -704
    whole = Path(file).read_bytes()
    monkeypatch.setattr(system, "replace", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
    assert store.save_tensor_to_safetensor(key, file) == -600
    assert "Input/output error" in store.last_error
    monkeypatch.undo()
    assert (os.listdir(tmp_path), Path(file).read_bytes()) == (["one.safetensors"], whole)
    assert store.save_tensor_to_safetensor(key, str(tmp_path / "none" / "x")) == -600
    assert "cannot be written" in store.last_error
    for name in (key + "other", None):
        assert torch.equal(store.load_tensor_from_safetensor(name, file), tensor)
        assert torch.equal(store.get_tensor(name or file), tensor)
    assert store.load_tensor_from_safetensor(key, str(tmp_path / "none")) is None
    assert "cannot be read" in store.last_error
