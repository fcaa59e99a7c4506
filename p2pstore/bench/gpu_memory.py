"""Memory of GPUs for benches and tests that have no tensor library: of CUDA's driver, and nothing else."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import xxhash

from engine.cuda.device_memory import DeviceMemory, device_memory
from engine.cuda.load import Cuda
from engine.cuda.pinned import stream_done
from engine.errors import GpuFailed
from p2pstore.errors import StorageError
from p2pstore.tensors.frameworks import Framework
from p2pstore.tensors.header import Tensor
from p2pstore.tensors.plan import Place

STAGED_BYTES = 32 << 20
"""Copied to the host at once, to be compared."""

WAIT_SECONDS = 60.0
"""For such a copy."""


class Area:
    """Memory of a GPU, freed with its last reference; what it has at first is whatever was there."""

    def __init__(self, cuda: Cuda, device: int, length: int) -> None:
        """Raises ``GpuFailed``."""
        self.device = device
        self.length = length
        self._cuda = cuda
        with cuda.driver.on(device):
            self.address = cuda.driver.memory(length)
        self.__cuda_array_interface__ = {
            "shape": (length,), "typestr": "|u1", "data": (self.address, False), "version": 3, "stream": None,
        }  # fmt: skip

    def __del__(self) -> None:
        address = getattr(self, "address", 0)
        if address:
            with contextlib.suppress(GpuFailed), self._cuda.driver.on(self.device):
                self._cuda.driver.end_memory(address)


@dataclass(frozen=True)
class Part:
    """A tensor: its bytes are ``length`` of an area from ``offset`` on. Without bytes it has no area."""

    area: Area | None
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


class DriverMemory(Framework):
    """A framework whose tensors are parts of areas of a GPU."""

    name = "driver"
    on_gpu = True

    def __init__(self, cuda: Cuda, device: int) -> None:
        self.device = device
        self._cuda = cuda

    def check(self, tensors: Iterable[Tensor]) -> None:
        """See ``Framework.check``: any type will do."""

    def area(self, length: int) -> Any:
        """See ``Framework.area``."""
        if not length:
            return bytearray()
        try:
            return Area(self._cuda, self.device, length)
        except GpuFailed as error:
            raise StorageError(path=f"memory of GPU {self.device}", detail=f"{length} bytes: {error}") from None

    def view(self, area: Any) -> memoryview | DeviceMemory:
        """See ``Framework.view``."""
        return device_memory(area, "the memory", writable=True) if isinstance(area, Area) else super().view(area)

    def tensor(self, area: Any, place: Place) -> Any:
        """See ``Framework.tensor``."""
        return Part(area if place.length else None, place.dtype, place.shape, place.offset, place.length)


class DriverGpus:
    """The GPUs that CUDA's driver has, with tensors of ``DriverMemory``; see ``Gpus``."""

    def __init__(self, cuda: Cuda) -> None:
        self.names = [f"cuda:{number}" for number in range(cuda.driver.count())]
        self._cuda = cuda
        self._lock = threading.Lock()
        self._staged: dict[int, tuple[int, int, memoryview]] = {}  # by GPU: a stream, pinned memory, and its bytes

    def framework(self, device: str) -> DriverMemory:
        """That of a GPU by its name."""
        return DriverMemory(self._cuda, self.names.index(device))

    def same(self, tensor: Part, device: str, shape: tuple[int, ...], expected: memoryview) -> bool:
        """See ``Gpus.same``."""
        found = self.digest(tensor, device, shape)
        return tensor.length == len(expected) and found == xxhash.xxh3_128_digest(expected)

    def digest(self, tensor: Part, device: str, shape: tuple[int, ...]) -> bytes:
        """XXH3-128 of what a tensor has on a GPU; none where it has another shape, or lies on another."""
        area = tensor.area
        if tensor.shape != tuple(shape) or (area is not None and self.names[area.device] != device):
            return b""
        found = xxhash.xxh3_128()
        if area is not None:
            with self._lock:
                for at in range(0, tensor.length, STAGED_BYTES):
                    found.update(self._read(area, tensor.offset + at, min(STAGED_BYTES, tensor.length - at)))
        return found.digest()

    def _read(self, area: Area, offset: int, length: int) -> memoryview:
        """Bytes of a GPU, valid until the next are read."""
        driver = self._cuda.driver
        with driver.on(area.device):
            if area.device not in self._staged:
                stream, pinned = driver.stream(), driver.pin(STAGED_BYTES)
                view = memoryview((ctypes.c_ubyte * STAGED_BYTES).from_address(pinned)).cast("B")
                self._staged[area.device] = stream, pinned, view
            stream, pinned, view = self._staged[area.device]
            driver.to_host(pinned, area.address + offset, length, stream)
        if not stream_done(driver, area.device, stream, time.monotonic() + WAIT_SECONDS):
            del self._staged[area.device]  # the copy may write there yet: it stays pinned
            detail = f"a copy from it has not ended for {WAIT_SECONDS:g} s"
            raise StorageError(path=f"memory of GPU {area.device}", detail=detail)
        return view[:length]

    def settle(self) -> None:
        """See ``Gpus.settle``: nothing is kept here that nothing uses."""

    def close(self) -> None:
        """Give back what comparing took."""
        with self._lock:
            for device, (stream, pinned, view) in self._staged.items():
                view.release()
                with contextlib.suppress(GpuFailed), self._cuda.driver.on(device):
                    self._cuda.driver.end_stream(stream)
                    self._cuda.driver.unpin(pinned)
            self._staged.clear()
