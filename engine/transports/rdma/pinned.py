"""Memory that devices may use: where it is, that it stays there, and its registrations.

What is registered must neither move nor go away. So whatever owns the memory is held for as long as a region exists,
and regions are closed first.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from engine.errors import StorageError
from engine.transports.rdma.verbs.interface import Access, Region

if TYPE_CHECKING:
    from typing_extensions import Buffer as Exporter

    from engine.transports.rdma.nics import Nic

PAGE = mmap.PAGESIZE

_PROT_READ, _MAP_SHARED, _FAILED = 1, 1, ctypes.c_void_p(-1).value
_libc = ctypes.CDLL(None, use_errno=True)
_mmap, _munmap = _libc.mmap, _libc.munmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class _PyBuffer(ctypes.Structure):
    """``Py_buffer`` of Python's ``pybuffer.h``."""

    _fields_ = (
        ("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    )  # fmt: skip


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int)
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_PyBuffer),)
_release_buffer.restype = None


class Held:
    """The memory of anything with the buffer protocol, read-only or not, which cannot move until ``close``."""

    def __init__(self, data: Exporter) -> None:
        """Raises ``BufferError`` for memory that is not contiguous."""
        self._buffer = _PyBuffer()
        self._open = False
        _get_buffer(data, ctypes.byref(self._buffer), 0)
        self._open = True
        self.address: int = self._buffer.buf or 0
        self.length: int = self._buffer.len
        self.readonly = bool(self._buffer.readonly)

    def close(self) -> None:
        """Let it go. Twice is harmless."""
        if self._open:
            self._open = False
            _release_buffer(ctypes.byref(self._buffer))

    def __del__(self) -> None:
        self.close()


class MappedFile:
    """``length`` bytes at ``offset`` of a file, mapped to be read; ``address`` is where they begin."""

    def __init__(self, fd: int, offset: int, length: int, path: str = "") -> None:
        """Raises ``StorageError``."""
        skew = offset % PAGE
        self._size = length + skew
        base = _mmap(None, self._size, _PROT_READ, _MAP_SHARED, fd, offset - skew)
        if base == _FAILED:
            raise StorageError(path=path or "a file", detail=os.strerror(ctypes.get_errno()))
        self._base: int | None = base
        self.address: int = base + skew
        self.length = length
        self.readonly = True

    def close(self) -> None:
        """Unmap it. Twice is harmless."""
        base, self._base = self._base, None
        if base is not None:
            _munmap(base, self._size)


class Pinned:
    """Memory with its regions, one for each device that was asked for it."""

    def __init__(self, memory: Held | MappedFile, access: Access, *, remote: int | None = None) -> None:
        """Owns ``memory``. Peers name its start ``remote``, by default its address."""
        self.memory = memory
        self.address = memory.address
        self.length = memory.length
        self.remote = memory.address if remote is None else remote
        self._access = access
        self._regions: dict[str, Region] = {}

    def register(self, nics: Iterable[Nic]) -> None:
        """See that these devices know it. Raises ``VerbsFailed`` or ``LockedMemoryLimit``. Not for two threads."""
        for nic in nics:
            if nic.name not in self._regions:
                self._regions[nic.name] = nic.context.register(self.address, self.length, self._access, self.remote)

    def lkeys(self) -> dict[str, int]:
        """Our keys by device."""
        return {name: region.lkey for name, region in self._regions.items()}

    def rkeys(self) -> dict[str, int]:
        """The peers' keys by device."""
        return {name: region.rkey for name, region in self._regions.items()}

    def close(self) -> None:
        """Deregister it everywhere, then let the memory go. Twice is harmless."""
        try:
            while self._regions:
                _, region = self._regions.popitem()
                region.close()
        finally:
            self.memory.close()
