"""Memory that devices may use: where it is, that it stays there, and its registrations.

What is registered must neither move nor go away. So whatever owns the memory is held for as long as it is registered,
and is let go last.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from engine.errors import StorageError
from engine.memory.region import Region
from engine.transports.rdma.verbs.interface import Access, Registration

if TYPE_CHECKING:
    from engine.transports.rdma.nics import RdmaNic

PAGE = mmap.PAGESIZE

_PROT_READ, _MAP_SHARED, _FAILED = 1, 1, ctypes.c_void_p(-1).value
_libc = ctypes.CDLL(None, use_errno=True)
_mmap, _munmap = _libc.mmap, _libc.munmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


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
    """Memory with its registrations, one for each device that was asked for it."""

    def __init__(self, memory: Region | MappedFile, access: Access, *, remote: int | None = None) -> None:
        """Owns ``memory``. Peers name its start ``remote``, by default its address."""
        self.memory = memory
        self.address = memory.address
        self.length = memory.length
        self.remote = memory.address if remote is None else remote
        self._access = access
        self._registered: dict[str, Registration] = {}

    def register(self, nics: Iterable[RdmaNic]) -> None:
        """See that these devices know it. Raises ``VerbsFailed`` or ``LockedMemoryLimit``. Not for two threads."""
        for nic in nics:
            if nic.name not in self._registered:
                self._registered[nic.name] = nic.context.register(self.address, self.length, self._access, self.remote)

    def lkeys(self) -> dict[str, int]:
        """Our keys by device."""
        return {name: each.lkey for name, each in self._registered.items()}

    def rkeys(self) -> dict[str, int]:
        """The peers' keys by device."""
        return {name: each.rkey for name, each in self._registered.items()}

    def close(self) -> None:
        """Deregister it everywhere, then let the memory go. Twice is harmless."""
        try:
            while self._registered:
                _, registration = self._registered.popitem()
                registration.close()
        finally:
            self.memory.close()
