"""What programs hand over that lies on a GPU, on the fake one, as PyTorch, CuPy and JAX would."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from engine.cuda import load
from engine.cuda.fake_driver import FakeDriver
from engine.memory.lent import _DLTensor

WAIT = 60.0


@contextmanager
def fake(devices: int = 1, **options: Any) -> Iterator[FakeDriver]:
    """GPUs for a while; what is made on them is to be ended by then."""
    driver = FakeDriver(devices, **options)
    load.use(driver)
    try:
        yield driver
    finally:
        load.forget()
        driver.close()


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loaded PyTorch in this process before: it knows nothing of the fake GPUs, and is not to be asked."""
    monkeypatch.setitem(sys.modules, "torch", None)


def nothing_left(driver: FakeDriver) -> None:
    """Assert that all was ended, that pinned memory alone is left for others, and that no rule was broken."""
    driver.resume()
    cuda = load.in_use()
    assert cuda is not None
    cuda.trim()
    assert driver.open == {"streams": 0, "events": 0, "memory": 0, "opened": 0, "pinned": 0}
    assert driver.copied_within_host == 0
    assert driver.freed_in_use == 0
    assert driver.pageable_copies == 0


class Tensor:
    """As a tensor of PyTorch on a GPU, of any type: bfloat16, float8, a parameter."""

    def __init__(
        self,
        driver: FakeDriver,
        data: bytes,
        *,
        device: int = 0,
        size: int = 1,
        shape: tuple[int, ...] | None = None,
        strides: tuple[int, ...] | None = None,
    ) -> None:
        self.driver = driver
        self.shape = shape or (len(data) // size,)
        self.size = size
        self.strides = strides
        self.address = driver.allocate(data, device) if data else 0
        self.device = SimpleNamespace(type="cuda", index=device)

    @property
    def __cuda_array_interface__(self) -> Any:
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device.index

    def data_ptr(self) -> int:
        return self.address

    def element_size(self) -> int:
        return self.size

    def stride(self) -> tuple[int, ...]:
        if self.strides is not None:
            return self.strides
        found, step = [], 1
        for count in reversed(self.shape):
            found.append(step)
            step *= count
        return tuple(reversed(found))

    @property
    def content(self) -> bytes:
        """What lies there now."""
        return self.driver.read(self.address)


class Storage:
    """As a storage of PyTorch on a GPU."""

    def __init__(self, driver: FakeDriver, data: bytes, *, device: int = 0) -> None:
        self.address = driver.allocate(data, device)
        self.length = len(data)
        self.device = SimpleNamespace(type="cuda", index=device)

    def data_ptr(self) -> int:
        return self.address

    def nbytes(self) -> int:
        return self.length


def torch(stream: int) -> Any:
    """As PyTorch, whose current stream is this one."""
    return SimpleNamespace(cuda=SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=stream)))


class Array:
    """As an array of CuPy or Numba."""

    def __init__(self, driver: FakeDriver, data: bytes, *, device: int = 0, version: int = 3, **said: Any) -> None:
        self.driver = driver
        self.address = driver.allocate(data, device)
        self.__cuda_array_interface__ = {
            "shape": (len(data),), "typestr": "|u1", "data": (self.address, False), "version": version, **said,
        }  # fmt: skip

    @property
    def content(self) -> bytes:
        return self.driver.read(self.address)


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _DLTensor), ("manager", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_new_capsule.restype = ctypes.py_object


class OverDLPack:
    """What offers DLPack alone, as an array of JAX. ``asked`` is the stream that it was told."""

    def __init__(self, driver: FakeDriver, data: bytes, *, device: int = 0, bits: int = 8) -> None:
        self.driver = driver
        self.device = device
        self.address = driver.allocate(data, device)
        self.shape = (ctypes.c_int64 * 1)(len(data) * 8 // bits)
        self.managed = _Managed()
        self.managed.tensor = _DLTensor(self.address, 2, device, 1, 4, bits, 1, self.shape, None, 0)
        self.asked = 0
        self.pending = 0
        """A stream of its own, with work that the reader must wait for."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device

    def __dlpack__(self, *, stream: int) -> Any:
        self.asked = stream
        if self.pending:
            with self.driver.on(self.device):
                event = self.driver.event()
                self.driver.record(event, self.pending)
                self.driver.wait(stream, event)
                self.driver.end_event(event)
        return _new_capsule(ctypes.addressof(self.managed), b"dltensor", None)

    @property
    def content(self) -> bytes:
        return self.driver.read(self.address)


class Immutable(OverDLPack):
    __module__ = "jaxlib._jax"
