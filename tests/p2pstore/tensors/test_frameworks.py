"""What is said where a package is missing, or has no such type. Tensors themselves: tests/p2pstore/pull, tests/serving."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from p2pstore.errors import StorageError, UsageError
from p2pstore.tensors.frameworks import framework_of
from p2pstore.tensors.header import Tensor


def tensor(dtype: str, shape: tuple[int, ...] = (4, 4)) -> Tensor:
    return Tensor("t", dtype, shape, 0, 0)


@pytest.mark.parametrize(("name", "other"), [("torch", "numpy"), ("numpy", "torch")])
def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch, name: str, other: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=f"pip install {name}; or use framework='{other}'"):
        framework_of(name, "cpu")


@pytest.mark.parametrize("device", ["cuda:0", "cuda", "cpu:0"])
def test_numpy_is_not_advised_for_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError) as fault:
        framework_of("torch", device)
    assert str(fault.value) == "framework='torch' needs that package: pip install torch"


def test_types_that_need_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    made = framework_of("numpy", "cpu")
    made.check([tensor("F32"), tensor("C64")])
    with pytest.raises(
        UsageError, match=r"'t' is of BF16, .* pip install -U ml-dtypes; or load it with framework='torch'"
    ):
        made.check([tensor("BF16")])


def test_a_package_too_old_for_a_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", SimpleNamespace())
    with pytest.raises(UsageError, match="pip install -U ml-dtypes"):
        framework_of("numpy", "cpu").check([tensor("F8_E8M0")])


class FakeTorch(SimpleNamespace):
    """As much of PyTorch as is asked before there are tensors."""

    def __init__(self, **types: Any) -> None:
        super().__init__(__version__="2.0", uint8="uint8", **types)

    def device(self, name: str) -> Any:
        if name == "nowhere":
            raise RuntimeError
        return SimpleNamespace(type=name.partition(":")[0])

    def empty(self, length: int, dtype: str, device: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


def test_what_pytorch_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", FakeTorch(float32=1, float4_e2m1fn_x2=2))
    made = framework_of("torch", "cpu")
    made.check([tensor("F32"), tensor("F4")])
    for dtype, shape, sentence in (
        ("F6_E2M3", (4, 4), "PyTorch has no such type"),
        ("F8_E8M0", (4, 4), "PyTorch 2.0 has no float8_e8m0fnu: pip install -U torch"),
        ("F4", (4, 3), "its last dimension is odd"),
        ("F4", (), "its last dimension is odd"),
    ):
        with pytest.raises(UsageError, match=sentence):
            made.check([tensor(dtype, shape)])
    with pytest.raises(StorageError, match="cannot allocate memory"):
        made.area(1 << 60)


@pytest.mark.parametrize(("device", "sentence"), [("nowhere", "one that PyTorch knows"), ("xpu:0", r"\.to\('xpu:0'\)")])
def test_devices(monkeypatch: pytest.MonkeyPatch, device: str, sentence: str) -> None:
    monkeypatch.setitem(sys.modules, "torch", FakeTorch())
    with pytest.raises(UsageError, match=sentence):
        framework_of("torch", device)


def test_other_names() -> None:
    with pytest.raises(UsageError, match="'torch' or 'numpy'"):
        framework_of("jax", "cpu")
    with pytest.raises(UsageError, match="host's memory"):
        framework_of("numpy", "cuda")
    with pytest.raises(StorageError):
        framework_of("numpy", "cpu").area(1 << 62)
