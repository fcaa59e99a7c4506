"""Memory of GPUs, which programs hand over by address: it is copied to the host and back, by CUDA's driver.

The driver is asked only where the program itself has loaded it: without it there is no such memory in this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Protocol

from engine.memory.copying import address_of, unfilled
from p2pstore.errors import UsageError

LIBRARY = b"libcuda.so.1"

_MEMORY_TYPE, _MANAGED, _ORDINAL = 2, 8, 9
_ON_DEVICE = 2


class Driver(Protocol):
    """What copies between host and devices."""

    def owns(self, pointer: int) -> bool:
        """Whether memory at an address is a device's, so that this process cannot read it by itself."""

    def to_host(self, to: int, pointer: int, size: int) -> None:
        """Copy from a device to an address here. Raises ``UsageError``."""

    def to_device(self, pointer: int, source: int, size: int) -> None:
        """The other way round."""


class Cuda:
    """NVIDIA's driver. Copies wait for what was started in the device's default stream."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """``library`` is ``libcuda.so.1``, which the program has set up."""
        self._library = library

    def owns(self, pointer: int) -> bool:
        """See ``Driver.owns``. Managed memory is read as it is."""
        kind = self._attribute(_MEMORY_TYPE, pointer)
        return kind == _ON_DEVICE and not self._attribute(_MANAGED, pointer)

    def to_host(self, to: int, pointer: int, size: int) -> None:
        """See ``Driver.to_host``."""
        with self._at_device_of(pointer):
            self._call("cuMemcpyDtoH_v2", ctypes.c_void_p(to), ctypes.c_uint64(pointer), ctypes.c_size_t(size))

    def to_device(self, pointer: int, source: int, size: int) -> None:
        """See ``Driver.to_device``."""
        with self._at_device_of(pointer):
            self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(pointer), ctypes.c_void_p(source), ctypes.c_size_t(size))

    def _attribute(self, which: int, pointer: int) -> int:
        """Of memory at an address; 0 where the driver knows nothing of it, as of all that CUDA did not make."""
        found = ctypes.c_uint64(0)
        code = self._library.cuPointerGetAttribute(ctypes.byref(found), ctypes.c_int(which), ctypes.c_uint64(pointer))
        return 0 if code else found.value & 0xFFFFFFFF

    @contextlib.contextmanager
    def _at_device_of(self, pointer: int) -> Iterator[None]:
        """Have the device's own context, which all libraries share, be this thread's."""
        ordinal = ctypes.c_int(self._attribute(_ORDINAL, pointer))
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), ordinal)
        try:
            self._call("cuCtxPushCurrent_v2", context)
            try:
                yield
            finally:
                self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
        finally:
            self._library.cuDevicePrimaryCtxRelease_v2(ordinal)

    def _call(self, name: str, *args: object) -> None:
        code = getattr(self._library, name)(*args)
        if code:
            raise UsageError(detail=f"the memory of the GPU cannot be copied: {name} fails with {code}")


_dlopen = ctypes.PyDLL(None).dlopen  # which takes less than a microsecond, with the interpreter's lock held
_dlopen.argtypes = (ctypes.c_char_p, ctypes.c_int)
_dlopen.restype = ctypes.c_void_p
_driver: Driver | None = None


def driver() -> Driver | None:
    """The driver, where this process has it."""
    global _driver  # noqa: PLW0603 - a library of the whole process
    if _driver is None and _dlopen(LIBRARY, os.RTLD_NOLOAD | os.RTLD_LAZY):
        _driver = Cuda(ctypes.CDLL(LIBRARY.decode()))
    return _driver


class Departing:
    """Memory of one call from which values are put: the memory itself, or a copy of what lies on a device."""

    def __init__(self, at: Callable[[int, int], memoryview]) -> None:
        """``at`` gives the memory of this process at an address."""
        self._at = at
        self._driver = driver()

    def at(self, pointer: int, size: int) -> memoryview:
        """``size`` bytes at an address. Raises ``UsageError``."""
        if self._driver is None or size <= 0 or not self._driver.owns(pointer):
            return self._at(pointer, size)
        made, view = unfilled(size)
        self._driver.to_host(address_of(view), pointer, size)
        return memoryview(made)


class Arriving:
    """Memory of one call to which values come: the memory itself, or a place from which they go on to a device."""

    def __init__(self, at: Callable[[int, int], memoryview]) -> None:
        """As ``Departing``."""
        self._at = at
        self._driver = driver()
        self._held: list[tuple[int, bytes, memoryview]] = []

    def at(self, pointer: int, size: int) -> memoryview:
        """``size`` bytes at an address. Raises ``UsageError``."""
        if self._driver is None or size <= 0 or not self._driver.owns(pointer):
            return self._at(pointer, size)
        made, view = unfilled(size)
        self._held.append((pointer, made, view))
        return view

    def land(self) -> None:
        """All has come: take it to the devices. Raises ``UsageError``."""
        for pointer, _, view in self._held:
            assert self._driver is not None  # noqa: S101 - for the type checker
            self._driver.to_device(pointer, address_of(view), len(view))
