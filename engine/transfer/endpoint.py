"""Where a peer answers requests for slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.protocol import wire

if TYPE_CHECKING:
    from engine.protocol.segment import SegmentDescriptor


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a segment's data server is, and the version of the wire that both ends speak.

    Where it is to be reached over RDMA, ``rdma`` is its descriptor, and ``rpc_port`` that of its handshake server.
    ``readable`` is the address of a byte that may be read, where one is known.
    """

    segment: str
    host: str
    port: int
    version: int = wire.LATEST_VERSION
    rpc_port: int = 0
    rdma: SegmentDescriptor | None = None
    readable: int | None = None
