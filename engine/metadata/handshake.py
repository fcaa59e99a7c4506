"""``P2PHANDSHAKE``: no metadata server. A segment's name is ``host:rpc_port``, and it tells its descriptor itself."""

from __future__ import annotations

from engine.metadata.base import FoundSegment, RpcEndpoint, SegmentDirectory
from engine.net import addresses
from engine.net.handshake_client import fetch_descriptor
from engine.protocol.segment import SegmentDescriptor

URL = "P2PHANDSHAKE"


class HandshakeDirectory(SegmentDirectory):
    """Asks the segments themselves."""

    url = URL

    def __init__(self, *, timeout: float) -> None:
        """``timeout`` is for a whole exchange, seconds."""
        self._timeout = timeout

    def publish(self, descriptor: SegmentDescriptor, rpc: RpcEndpoint) -> None:
        """Nothing to do: the handshake server tells it."""

    def withdraw(self, name: str) -> None:
        """Nothing to do."""

    def endpoint(self, name: str) -> RpcEndpoint:
        """See ``SegmentDirectory.endpoint``. Raises ``UsageError`` for a name that is no address."""
        return RpcEndpoint(*addresses.given(name))

    def resolve(self, name: str) -> FoundSegment:
        """See ``SegmentDirectory.resolve``."""
        at = self.endpoint(name)
        return FoundSegment(fetch_descriptor(at.host, at.port, timeout=self._timeout), at.host, at.port)

    def close(self) -> None:
        """Nothing to do."""
