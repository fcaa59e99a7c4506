"""What a ``TransferEngine`` offers over RDMA: each registered buffer whole, under the address that peers know.

The keys stand in the segment's descriptor, so that peers need not ask: upstream's can read and write, too. A device
takes them for the address that the segment gave the buffer, not for where it lies in this process.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from engine.errors import TransportUnavailable, UsageError
from engine.memory.region import Region
from engine.protocol.segment import BufferDescriptor, DeviceDescriptor
from engine.topology.matrix import matrix_json
from engine.transports.rdma.addresses import gid_to_wire
from engine.transports.rdma.pinned import MappedFile, Pinned
from engine.transports.rdma.verbs.interface import Access

if TYPE_CHECKING:
    from engine.memory.buffers import Buffer
    from engine.transports.rdma.nics import Nics


class WholeBuffers:
    """The registrations of one engine, by buffer. Thread-safe."""

    def __init__(self, nics: Nics) -> None:
        """Raises ``TransportUnavailable`` where the verbs cannot register memory under another address."""
        if not nics.verbs.remaps:
            detail = (
                f"{nics.verbs.name} cannot register memory under a segment's addresses; use ctypes (MOONCAKE_VERBS)"
            )
            raise TransportUnavailable(transport="rdma", detail=detail)
        self.nics = nics
        self.matrix = matrix_json(nics.matrix)
        self._order = nics.in_order
        self._lock = threading.Lock()
        self._pinned: dict[int, tuple[Buffer, Pinned]] = {}

    @property
    def devices(self) -> tuple[DeviceDescriptor, ...]:
        """Our devices, as a descriptor lists them."""
        return tuple(DeviceDescriptor(nic.name, nic.info.lid, gid_to_wire(nic.gid.raw)) for nic in self._order)

    @staticmethod
    def memory(buffer: Buffer) -> Region | MappedFile:
        """Where a buffer lies, held there. Raises ``UsageError`` for what is not in one piece, or a writable file."""
        view = buffer.view(0, buffer.length)
        if view is not None:
            with view:
                return Region.of(view)
        run = buffer.file_run(0, buffer.length)
        if run is None:
            raise UsageError(detail=f"buffer {buffer.name!r} is not in one piece, and cannot be offered over RDMA")
        try:
            if buffer.writable or run.length < buffer.length:
                detail = f"buffer {buffer.name!r} cannot be offered over RDMA: only one file that is read-only can"
                raise UsageError(detail=detail)
            return MappedFile(run.fd, run.offset, run.length)
        finally:
            os.close(run.fd)

    def add(self, buffer: Buffer, memory: Region | MappedFile, address: int) -> None:
        """Register ``memory``, which is that of ``buffer``, under ``address``; owns it.

        Raises ``LockedMemoryLimit`` or ``VerbsFailed``.
        """
        access = Access.REMOTE_READ
        if not memory.readonly:
            access |= Access.LOCAL_WRITE  # for our own reads into it
        if buffer.writable:
            access |= Access.REMOTE_WRITE
        pinned = Pinned(memory, access, remote=address)
        try:
            pinned.register(self._order)
        except BaseException:
            pinned.close()
            raise
        with self._lock:
            self._pinned[address] = buffer, pinned

    def described(self, buffers: tuple[BufferDescriptor, ...]) -> tuple[BufferDescriptor, ...]:
        """The buffers with their keys."""
        with self._lock:
            keys = {address: pinned.rkeys() for address, (_, pinned) in self._pinned.items()}
        return tuple(
            BufferDescriptor(
                each.name, each.address, each.length, tuple(keys[each.address][nic.name] for nic in self._order)
            )
            for each in buffers
            if each.address in keys
        )

    def find(self, buffer: Buffer) -> Pinned | None:
        """The registration of a buffer of ours; None where it has none."""
        with self._lock:
            return next((pinned for each, pinned in self._pinned.values() if each is buffer), None)

    def withdraw(self, address: int) -> None:
        """Offer it no more: whoever reads it is refused by the device."""
        with self._lock:
            found = self._pinned.pop(address, None)
        if found is not None:
            found[1].close()

    def close(self) -> None:
        """Offer nothing any more. Twice is harmless."""
        with self._lock:
            pinned, self._pinned = [each for _, each in self._pinned.values()], {}
        for each in pinned:
            each.close()
