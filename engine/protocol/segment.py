"""Upstream's segment descriptor for the protocols ``tcp`` and ``rdma``: what a peer can be asked to read, as JSON.

``{"name", "protocol": "tcp", "tcp_data_port", "tcp_proto_version", "timestamp", "buffers": [...]}``, each buffer
``{"name", "addr", "length"}``. Upstream rejects a whole segment for one buffer with an empty name, address 0 or
length 0; so do we. Without ``tcp_proto_version`` a peer speaks version 1. Unknown fields are ignored.

For ``rdma`` there are ``devices`` as well, each ``{"name", "lid", "gid"}``, the ``priority_matrix``, and in each buffer
``rkey`` and ``lkey`` with one number a device. Upstream's rdma segments have no data port; ours do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.errors import RemoteProtocolError

MAX_BUFFERS = 100_000
"""Most buffers that are accepted in one descriptor."""

MAX_DEVICES = 64
"""Most RDMA devices of one segment."""

TCP, RDMA = "tcp", "rdma"

_MAX_U32 = (1 << 32) - 1
_MAX_U64 = (1 << 64) - 1
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class BufferDescriptor:
    """One registered buffer: ``length`` bytes at ``address``."""

    name: str
    address: int
    length: int
    rkeys: tuple[int, ...] = ()
    """The keys for remote devices, one for each of the segment's; none where it is not offered over RDMA."""

    def to_json(self) -> dict[str, Any]:
        """Upstream's JSON object."""
        body: dict[str, Any] = {"name": self.name, "addr": self.address, "length": self.length}
        if self.rkeys:
            # Upstream wants as many lkeys, and uses none but its own.
            body |= {"rkey": list(self.rkeys), "lkey": [0] * len(self.rkeys)}
        return body

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
        rkeys = data.get("rkey") or []
        if not isinstance(rkeys, list) or len(rkeys) > MAX_DEVICES:
            raise RemoteProtocolError(peer=peer, detail=f"buffer {name!r} has an 'rkey' that is no list, or too long")
        keys = tuple(_number({"rkey": key}, "rkey", peer, least=0, most=_MAX_U32) for key in rkeys)
        return cls(name, address, length, keys)


@dataclass(frozen=True, slots=True)
class DeviceDescriptor:
    """One RDMA device of a segment, with its GID as upstream writes it: 16 bytes in hexadecimal, with colons."""

    name: str
    lid: int
    gid: str

    def to_json(self) -> dict[str, Any]:
        """Upstream's JSON object."""
        return {"name": self.name, "lid": self.lid, "gid": self.gid}

    @classmethod
    def from_json(cls, data: object, *, peer: str) -> DeviceDescriptor:
        """Read upstream's JSON object. Raises ``RemoteProtocolError``."""
        if not isinstance(data, dict):
            raise RemoteProtocolError(peer=peer, detail="a device that is no JSON object")
        lid = _number(data, "lid", peer, least=0, most=_MAX_PORT, default=0)
        return cls(_text(data, "name", peer), lid, _text(data, "gid", peer, default=""))


@dataclass(frozen=True, slots=True)
class SegmentDescriptor:
    """One peer's segment. ``name`` is ``host:rpc_port`` under P2PHANDSHAKE, and so says where the host is."""

    name: str
    tcp_data_port: int
    buffers: tuple[BufferDescriptor, ...] = ()
    tcp_proto_version: int = 1
    timestamp: str = ""
    protocol: str = "tcp"
    devices: tuple[DeviceDescriptor, ...] = ()
    matrix: Mapping[str, Any] = field(default_factory=dict)
    """The priority matrix, as ``engine.topology.matrix`` writes and reads it; of rdma segments."""

    def to_json(self) -> dict[str, Any]:
        """Upstream's JSON object."""
        body: dict[str, Any] = {
            "name": self.name,
            "protocol": self.protocol,
            "tcp_data_port": self.tcp_data_port,
            "tcp_proto_version": self.tcp_proto_version,
            "timestamp": self.timestamp,
            "buffers": [buffer.to_json() for buffer in self.buffers],
        }
        if self.protocol == RDMA:
            body |= {"devices": [device.to_json() for device in self.devices], "priority_matrix": dict(self.matrix)}
        return body

    @classmethod
    def from_json(cls, data: object, *, peer: str) -> SegmentDescriptor:
        """Read upstream's JSON object. Raises ``RemoteProtocolError``."""
        if not isinstance(data, dict):
            raise RemoteProtocolError(peer=peer, detail="a segment that is no JSON object")
        protocol = _text(data, "protocol", peer)
        if protocol not in {TCP, RDMA}:
            detail = f"a segment of protocol {protocol!r}; only 'tcp' and 'rdma' are understood"
            raise RemoteProtocolError(peer=peer, detail=detail)
        devices, matrix = data.get("devices") or [], data.get("priority_matrix") or {}
        if not isinstance(devices, list) or len(devices) > MAX_DEVICES or not isinstance(matrix, dict):
            raise RemoteProtocolError(peer=peer, detail="a segment whose devices are no list, or too many")
        buffers = data.get("buffers") or []
        if not isinstance(buffers, list) or len(buffers) > MAX_BUFFERS:
            raise RemoteProtocolError(peer=peer, detail="a segment whose buffers are no list, or too many")
        return cls(
            name=_text(data, "name", peer),
            tcp_data_port=_number(
                data,
                "tcp_data_port",
                peer,
                least=int(protocol == TCP),
                most=_MAX_PORT,
                default=None if protocol == TCP else 0,
            ),
            buffers=tuple(BufferDescriptor.from_json(buffer, peer=peer) for buffer in buffers),
            tcp_proto_version=_number(data, "tcp_proto_version", peer, least=1, most=_MAX_U64, default=1),
            timestamp=_text(data, "timestamp", peer, default=""),
            protocol=protocol,
            devices=tuple(DeviceDescriptor.from_json(device, peer=peer) for device in devices),
            matrix=matrix,
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
