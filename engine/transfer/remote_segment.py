"""A segment that was opened: its descriptor, and where its servers are."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NoReturn

from engine import forks
from engine.errors import RangeRefused, TransportUnavailable
from engine.protocol.segment import RDMA
from engine.protocol.wire import LATEST_VERSION
from engine.transfer.endpoint import Endpoint
from engine.transfer.lanes import Mover, Peer, over_tcp

if TYPE_CHECKING:
    from engine.config.settings import EngineSettings
    from engine.metadata.base import FoundSegment
    from engine.protocol.segment import BufferDescriptor, SegmentDescriptor
    from engine.transfer.rdma_connection import Carriers


class Segment:
    """What ``TransferEngine.open_segment`` returns. Thread-safe; valid until the engine is closed."""

    def __init__(
        self,
        name: str,
        resolve: Callable[[], FoundSegment],
        settings: EngineSettings,
        carriers: Carriers | None = None,
    ) -> None:
        """Made by ``TransferEngine``; raises as ``resolve``. With ``carriers`` what offers RDMA is reached over it."""
        self.name = name
        self._origin = forks.Origin("this segment")
        self._resolve = resolve
        self._settings = settings
        self._lock = threading.Lock()
        self._resolved = resolve()
        self._sorted = _by_address(self._resolved)
        self._carriers = carriers
        self.peer = Peer(name, self._locate, settings, self._connect)

    def __reduce__(self) -> NoReturn:
        forks.refuse_to_be_sent("a segment that was opened")

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

    @property
    def over_rdma(self) -> bool:
        """Whether transfers with it go over RDMA: it offers that, and so does this engine."""
        return self._carriers is not None and self.descriptor.protocol == RDMA

    @property
    def lanes(self) -> int:
        """How many connections may work for one batch. Upstream's segments take one over RDMA."""
        alone = self.over_rdma and not self.descriptor.tcp_data_port
        return 1 if alone else self._settings.lanes

    def refresh(self) -> SegmentDescriptor:
        """Read the descriptor again. Raises ``SegmentNotFound``, ``MetadataUnavailable`` or a ``RemoteError``."""
        self._origin.check()
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
        checked = descriptor.tcp_proto_version >= LATEST_VERSION and not self.over_rdma
        if checked or not buffers:
            return True
        index = bisect_right(buffers, address, key=lambda each: each.address) - 1
        return index >= 0 and address + length <= buffers[index].address + buffers[index].length

    def _keys(self, address: int, length: int, again: bool) -> Mapping[str, int] | None:  # noqa: FBT001
        """See ``engine.transfer.rdma_connection.Keys``."""
        if again:
            self.refresh()
        with self._lock:
            descriptor, buffers = self._resolved.descriptor, self._sorted
        index = bisect_right(buffers, address, key=lambda each: each.address) - 1
        if index < 0 or address + length > buffers[index].address + buffers[index].length:
            return None
        rkeys = buffers[index].rkeys
        names = [device.name for device in descriptor.devices]
        return dict(zip(names, rkeys, strict=True)) if len(rkeys) == len(names) else None

    def _locate(self, again: bool) -> Endpoint:  # noqa: FBT001 - the signature that Peer asks for
        if again:
            self.refresh()
        with self._lock:
            found = self._resolved
        version = min(found.descriptor.tcp_proto_version, self._settings.protocol_version)
        rdma = found.descriptor if self.over_rdma else None
        readable = next((each.address for each in found.descriptor.buffers if each.length), None)
        return Endpoint(self.name, found.host, found.descriptor.tcp_data_port, version, found.rpc_port, rdma, readable)

    def _connect(self, endpoint: Endpoint, settings: EngineSettings) -> Mover:
        if self._carriers is not None and endpoint.rdma is not None:
            return self._carriers.connect(
                endpoint, self._keys, connect_timeout=settings.connect_timeout, stall_timeout=settings.stall_timeout
            )
        if not endpoint.port:
            detail = f"segment {self.name!r} offers RDMA and nothing else, and this engine's protocol is tcp"
            raise TransportUnavailable(transport="tcp", detail=detail)
        return over_tcp(endpoint, settings)


def _by_address(found: FoundSegment) -> list[BufferDescriptor]:
    return sorted(found.descriptor.buffers, key=lambda each: each.address)
