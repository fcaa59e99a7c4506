"""A segment that was opened: its descriptor, and where its servers are."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.errors import RangeRefused
from engine.lanes import Peer
from engine.tcp_client import Endpoint
from engine.wire import LATEST_VERSION

if TYPE_CHECKING:
    from engine.metadata.base import Resolved
    from engine.segment import BufferDescriptor, SegmentDescriptor
    from engine.settings import EngineSettings


class Segment:
    """What ``TransferEngine.open_segment`` returns. Thread-safe; valid until the engine is closed."""

    def __init__(self, name: str, resolve: Callable[[], Resolved], settings: EngineSettings) -> None:
        """Made by ``TransferEngine``; raises as ``resolve``."""
        self.name = name
        self._resolve = resolve
        self._settings = settings
        self._lock = threading.Lock()
        self._resolved = resolve()
        self._sorted = _by_address(self._resolved)
        self.peer = Peer(name, self._locate, settings)

    def __repr__(self) -> str:
        return f"Segment({self.name!r})"

    @property
    def descriptor(self) -> SegmentDescriptor:
        """The segment's descriptor as it was last read."""
        return self._resolved.descriptor

    @property
    def buffers(self) -> tuple[BufferDescriptor, ...]:
        """The registered buffers that the descriptor lists: their addresses are what requests name."""
        return self.descriptor.buffers

    def refresh(self) -> SegmentDescriptor:
        """Read the descriptor again. Raises ``SegmentNotFound``, ``MetadataUnavailable`` or a ``RemoteError``."""
        found = self._resolve()
        with self._lock:
            self._resolved = found
            self._sorted = _by_address(found)
        return found.descriptor

    def refusal(self, address: int, length: int) -> RangeRefused | None:
        """Why a range is not to be asked for; None where it is, or where the peer itself will say.

        Version 1 servers of upstream (0.3.11 and older) check no address: one outside their buffers reads or writes
        whatever lies there, or ends their process. Raises as ``refresh``.
        """
        if self._covers(address, length):
            return None
        self.refresh()
        if self._covers(address, length):
            return None
        return RangeRefused(peer=self.name, address=address, length=length)

    def _covers(self, address: int, length: int) -> bool:
        with self._lock:
            descriptor, buffers = self._resolved.descriptor, self._sorted
        if descriptor.tcp_proto_version >= LATEST_VERSION or not buffers:
            return True
        index = bisect_right(buffers, address, key=lambda each: each.address) - 1
        return index >= 0 and address + length <= buffers[index].address + buffers[index].length

    def _locate(self, again: bool) -> Endpoint:  # noqa: FBT001 - the signature that Peer asks for
        if again:
            self.refresh()
        with self._lock:
            found = self._resolved
        version = min(found.descriptor.tcp_proto_version, self._settings.protocol_version)
        return Endpoint(self.name, found.host, found.descriptor.tcp_data_port, version)


def _by_address(found: Resolved) -> list[BufferDescriptor]:
    return sorted(found.descriptor.buffers, key=lambda each: each.address)
