"""Upstream's segment descriptor for protocol ``tcp``: what a peer can be asked to read, as JSON.

``{"name", "protocol": "tcp", "tcp_data_port", "tcp_proto_version", "timestamp", "buffers": [...]}``, each buffer
``{"name", "addr", "length"}``. Upstream rejects a whole segment for one buffer with an empty name, address 0 or
length 0; so do we. Without ``tcp_proto_version`` a peer speaks version 1. Unknown fields are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.errors import RemoteProtocolError

MAX_BUFFERS = 100_000
"""Most buffers that are accepted in one descriptor."""

_MAX_U64 = (1 << 64) - 1
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class BufferDescriptor:
    """One registered buffer: ``length`` bytes at ``address``."""

    name: str
    address: int
    length: int

    def to_json(self) -> dict[str, Any]:
        """Upstream's JSON object."""
        return {"name": self.name, "addr": self.address, "length": self.length}

    @classmethod
    def from_json(cls, data: object, *, peer: str) -> BufferDescriptor:
        """Read upstream's JSON object. Raises ``RemoteProtocolError``."""
        if not isinstance(data, dict):
            raise RemoteProtocolError(peer=peer, detail="a buffer that is no JSON object")
        name = _text(data, "name", peer)
        address = _number(data, "addr", peer, least=1, most=_MAX_U64)
        length = _number(data, "length", peer, least=1, most=_MAX_U64)
        if not name:
            raise RemoteProtocolError(peer=peer, detail="a buffer without a name")
        if address + length - 1 > _MAX_U64:
            raise RemoteProtocolError(peer=peer, detail=f"buffer {name!r} ends beyond 2**64")
        return cls(name, address, length)


@dataclass(frozen=True, slots=True)
class SegmentDescriptor:
    """One peer's segment. ``name`` is ``host:rpc_port`` under P2PHANDSHAKE, and so says where the host is."""

    name: str
    tcp_data_port: int
    buffers: tuple[BufferDescriptor, ...] = ()
    tcp_proto_version: int = 1
    timestamp: str = ""
    protocol: str = "tcp"

    def to_json(self) -> dict[str, Any]:
        """Upstream's JSON object."""
        return {
            "name": self.name,
            "protocol": self.protocol,
            "tcp_data_port": self.tcp_data_port,
            "tcp_proto_version": self.tcp_proto_version,
            "timestamp": self.timestamp,
            "buffers": [buffer.to_json() for buffer in self.buffers],
        }

    @classmethod
    def from_json(cls, data: object, *, peer: str) -> SegmentDescriptor:
        """Read upstream's JSON object. Raises ``RemoteProtocolError``."""
        if not isinstance(data, dict):
            raise RemoteProtocolError(peer=peer, detail="a segment that is no JSON object")
        protocol = _text(data, "protocol", peer)
        if protocol != "tcp":
            raise RemoteProtocolError(peer=peer, detail=f"a segment of protocol {protocol!r}; only 'tcp' is understood")
        buffers = data.get("buffers") or []
        if not isinstance(buffers, list) or len(buffers) > MAX_BUFFERS:
            raise RemoteProtocolError(peer=peer, detail="a segment whose buffers are no list, or too many")
        return cls(
            name=_text(data, "name", peer),
            tcp_data_port=_number(data, "tcp_data_port", peer, least=1, most=_MAX_PORT),
            buffers=tuple(BufferDescriptor.from_json(buffer, peer=peer) for buffer in buffers),
            tcp_proto_version=_number(data, "tcp_proto_version", peer, least=1, most=_MAX_U64, default=1),
            timestamp=_text(data, "timestamp", peer, default=""),
            protocol=protocol,
        )


def _text(data: dict[str, Any], key: str, peer: str, default: str | None = None) -> str:
    value = data.get(key, default)
    if not isinstance(value, str):
        raise RemoteProtocolError(peer=peer, detail=f"{key!r} is missing or no text")
    return value


def _number(data: dict[str, Any], key: str, peer: str, *, least: int, most: int, default: int | None = None) -> int:
    value = data.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise RemoteProtocolError(peer=peer, detail=f"{key!r} is missing, no integer, or out of range")
    return value
