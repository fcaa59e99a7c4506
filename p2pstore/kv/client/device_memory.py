"""Memory of GPUs, which programs hand over by address: it is copied to the host and back, by CUDA's driver.

The driver is asked only where the program itself has loaded it: without it there is no such memory in this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from operator import itemgetter
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


_process = ctypes.CDLL(None)
_process.dlopen.argtypes = (ctypes.c_char_p, ctypes.c_int)
_process.dlopen.restype = ctypes.c_void_p

_driver: Driver | None = None


def driver() -> Driver | None:
    """The driver, where this process has it.

    Until then each look takes some 20 us, and is not to be spared: a library may load the driver later.
    Nor is there a quicker one: ``dl_iterate_phdr`` tells how many libraries were loaded, but holds the
    loader's lock while it calls back; a callback in Python waits there for the interpreter's lock, which another thread
    may have that waits for the loader's.
    """
    global _driver  # noqa: PLW0603 - a library of the whole process
    if _driver is None and _process.dlopen(LIBRARY, os.RTLD_NOLOAD | os.RTLD_LAZY):
        _driver = Cuda(ctypes.CDLL(LIBRARY.decode()))
    return _driver


class HostMemory:
    """Memory that is known to be no device's, so that nobody needs to look for a driver. Thread-safe."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []
        """Where each begins and ends, in order; replaced and never changed."""

    def add(self, pointer: int, size: int) -> None:
        """``size`` bytes at an address are the host's, in place of what was said to be there."""
        others = [each for each in self._ranges if each[0] != pointer]
        self._ranges = sorted([*others, (pointer, pointer + size)])

    def discard(self, pointer: int) -> None:
        """Nothing is known of the range at an address any more."""
        self._ranges = [each for each in self._ranges if each[0] != pointer]

    def holds(self, pointer: int, size: int) -> bool:
        """Whether ``size`` bytes at an address lie in one range: the last that begins there or before."""
        ranges = self._ranges
        place = bisect_right(ranges, pointer, key=_start) - 1
        return place >= 0 and pointer + size <= ranges[place][1]


_start = itemgetter(0)

NOTHING_KNOWN = HostMemory()


class _Memory:
    """Memory of one call, by address."""

    def __init__(self, at: Callable[[int, int], memoryview], host: HostMemory = NOTHING_KNOWN) -> None:
        """``at`` gives the memory of this process at an address; ``host`` is what is known to be its."""
        self._at = at
        self._host = host
        self._driver: Driver | None = None
        self._looked = False

    def is_devices(self, pointer: int) -> bool:
        """Whether memory at an address is a device's, so that this process cannot read it by itself."""
        return self._driver_of(pointer, 1) is not None

    def _driver_of(self, pointer: int, size: int) -> Driver | None:
        """The driver, if memory is a device's."""
        if size <= 0 or self._host.holds(pointer, size):
            return None
        if not self._looked:
            self._driver, self._looked = driver(), True
        return self._driver if self._driver is not None and self._driver.owns(pointer) else None


class Departing(_Memory):
    """From which values are put: the memory itself, or a copy of what lies on a device."""

    def at(self, pointer: int, size: int) -> memoryview:
        """``size`` bytes at an address. Raises ``UsageError``."""
        owner = self._driver_of(pointer, size)
        if owner is None:
            return self._at(pointer, size)
        made, view = unfilled(size)
        owner.to_host(address_of(view), pointer, size)
        return memoryview(made)


class Arriving(_Memory):
    """To which values come: the memory itself, or a place from which they go on to a device."""

    _held: list[tuple[Driver, int, bytes, memoryview]] | None = None

    def at(self, pointer: int, size: int) -> memoryview:
        """``size`` bytes at an address. Raises ``UsageError``."""
        owner = self._driver_of(pointer, size)
        if owner is None:
            return self._at(pointer, size)
        made, view = unfilled(size)
        self._held = self._held or []
        self._held.append((owner, pointer, made, view))
        return view

    def land(self) -> None:
        """All has come: take it to the devices. Raises ``UsageError``."""
        for owner, pointer, _, view in self._held or ():
            owner.to_device(pointer, address_of(view), len(view))
