"""Memory that devices may use: where it is, that it stays there, and its registrations.

What is registered must neither move nor go away. So whatever owns the memory is held for as long as it is registered,
and is let go last.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from engine.errors import StorageError
from engine.files.refusals import cannot
from engine.files.system import system
from engine.memory.region import Region
from engine.transports.rdma.verbs.interface import Access, Registration

if TYPE_CHECKING:
    from engine.transports.rdma.nics import RdmaNic

PAGE = mmap.PAGESIZE


class Unmappable(StorageError):
    """The file system has no shared mappings: its files can be read all the same. It crosses no socket."""


class MappedFile:
    """``length`` bytes at ``offset`` of a file, mapped to be read; ``address`` is where they begin."""

    def __init__(self, fd: int, offset: int, length: int, path: str = "") -> None:
        """Raises ``Unmappable``, or ``StorageError`` for another reason."""
        skew = offset % PAGE
        self._size = length + skew
        try:
            base = system.map_shared(fd, offset - skew, self._size)
        except OSError as error:
            fault = Unmappable if cannot("mmap", error) else StorageError
            raise fault(path=path or "a file", detail=error.strerror) from None
        self._base: int | None = base
        self.address: int = base + skew
        self.length = length
        self.readonly = True

    def close(self) -> None:
        """Unmap it. Twice is harmless."""
        base, self._base = self._base, None
        if base is not None:
            system.unmap(base, self._size)


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
