"""Memory that processes of one host share: made by one, and mapped by whoever is handed its descriptor. And files.

It is a memfd whose size is sealed: neither side can take pages away from under the other. It has no name anywhere, so
nothing of it is left when the last process that maps it has ended, however that was.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import stat

from engine import forks
from engine.errors import UsageError
from engine.files.system import system
from engine.memory.buffers import FileRun, MemoryBuffer

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""What is asked of memory before it is mapped: a page that went away would end this process."""


class Mapping:
    """``length`` bytes of a descriptor, from a page's boundary on, mapped to be read and written, at ``address``.

    They stay mapped as long as this object or a view of it lives. A forked child does not have them.
    """

    def __init__(self, fd: int, length: int, offset: int = 0) -> None:
        """Raises ``OSError``."""
        self._origin = forks.Origin("mapped memory")
        self.length = length
        self.address = 0
        self.address = system.map_shared(fd, offset, length, writable=True)
        system.keep_from_children(self.address, length)

    def view(self) -> memoryview:
        """All of it. Whoever has a view keeps the memory mapped."""
        raw = (ctypes.c_ubyte * self.length).from_address(self.address)
        raw.owner = self  # type: ignore[attr-defined]
        return memoryview(raw).cast("B")

    def __del__(self) -> None:
        if self.address and not self._origin.elsewhere:
            system.unmap(self.address, self.length)


class SharedMemory:
    """Zeroed memory of ``length`` bytes that others can be handed. ``view`` is how it is used here."""

    def __init__(self, length: int, *, start: int = 0) -> None:
        """It begins ``start`` bytes behind a page's boundary. Raises ``UsageError`` where there is none to be had."""
        if length < 1:
            raise UsageError(detail=f"shared memory of {length} bytes cannot be had")
        self.length = length
        self.start = start
        self.fd = -1
        try:
            self.fd = os.memfd_create("mooncake", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            forks.hold_descriptor(self.fd)
            system.ftruncate(self.fd, start + length)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, SEALS)
            self._mapping: Mapping | None = Mapping(self.fd, start + length)
        except OSError as error:
            self.close()
            detail = f"{length} bytes of shared memory cannot be had: {error.strerror or error}"
            raise UsageError(detail=detail) from None
        self.view = self._mapping.view()[start:]

    def close(self) -> None:
        """Let go of it here; twice is harmless. It is gone when views and other processes have let go of it, too."""
        fd, self.fd = self.fd, -1
        self._mapping = None
        self.view = memoryview(b"")
        if fd >= 0:
            os.close(fd)


class SharedBuffer(MemoryBuffer):
    """Shared memory as a registered buffer: peers on this host may be handed it. Owns the memory."""

    def __init__(self, name: str, memory: SharedMemory) -> None:
        """Peers may read and write it."""
        super().__init__(name, memory.view, writable=True)
        self._memory = memory

    def file_run(self, offset: int, length: int) -> FileRun | None:
        """See ``Buffer.file_run``: the receiver can read and write all of the memory."""
        return FileRun(os.dup(self._memory.fd), self._memory.start + offset, length)

    def close(self) -> None:
        """See ``Buffer.close``."""
        super().close()
        self._memory.close()


def map_handed_over(fd: int) -> Mapping:
    """Map what a peer handed over, whole. Raises ``UsageError`` for what could be cut short, ``OSError``."""
    try:
        sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:  # no memfd
        sealed = 0
    if not sealed & fcntl.F_SEAL_SHRINK:
        raise UsageError(detail="what was handed over is no memory of a fixed size")
    return Mapping(fd, os.fstat(fd).st_size)


class MappedFileBuffer(MemoryBuffer):
    """Part of a file, or of a device that can be mapped, as memory in which peers read and write.

    It is not handed to others of this host: a file can be cut short, and then who maps it is ended by the system. So
    nobody may do that as long as this is registered.
    """

    def __init__(self, name: str, path: str | os.PathLike[str], length: int, offset: int = 0) -> None:
        """``offset`` is a multiple of the page size. Raises ``UsageError``."""
        if length < 1 or offset < 0 or offset % mmap.PAGESIZE:
            detail = f"{length} bytes at {offset} of {path}: give at least one, from a multiple of {mmap.PAGESIZE} on"
            raise UsageError(detail=detail)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                status = os.fstat(fd)
                if stat.S_ISREG(status.st_mode) and offset + length > status.st_size:
                    raise UsageError(detail=f"{length} bytes at {offset} of {path}, which has {status.st_size}")
                self._mapping: Mapping | None = Mapping(fd, length, offset)
            finally:
                os.close(fd)
        except OSError as error:
            raise UsageError(detail=f"{path} cannot be mapped: {error.strerror or error}") from None
        super().__init__(name, self._mapping.view(), writable=True)

    @property
    def whole(self) -> memoryview:
        """All of it."""
        return self._view

    def close(self) -> None:
        """See ``Buffer.close``."""
        super().close()
        self._mapping = None
