"""Upstream's keys and JSON for segments in a metadata server; pure.

``mooncake/[<cluster>/]rpc_meta/<name>`` holds ``{"ip_or_host_name", "rpc_port"}``, ``mooncake/[<cluster>/]ram/<name>``
the segment descriptor. A name with a slash in it is a key of its own: ``mooncake/<name>``. Values end with a newline.
Source: upstream's ``transfer_metadata.cpp``.
"""

from __future__ import annotations

import json
from typing import Any

from engine.errors import RemoteProtocolError
from engine.metadata.base import MAX_VALUE, RpcEndpoint
from engine.net import addresses
from engine.protocol.segment import SegmentDescriptor

ROOT = "mooncake/"


def segment_key(name: str, cluster: str = "") -> str:
    """The key of a segment's descriptor."""
    if "/" in name:
        return ROOT + name
    return f"{_root(cluster)}ram/{name}"


def rpc_key(name: str, cluster: str = "") -> str:
    """The key of a segment's handshake address."""
    return f"{_root(cluster)}rpc_meta/{name}"


def encode_segment(descriptor: SegmentDescriptor) -> bytes:
    """The value under ``segment_key``."""
    return _encode(descriptor.to_json())


def decode_segment(value: bytes, *, name: str) -> SegmentDescriptor:
    """The descriptor in a value. Raises ``RemoteProtocolError``."""
    return SegmentDescriptor.from_json(_decode(value, name), peer=name)


def encode_rpc(endpoint: RpcEndpoint) -> bytes:
    """The value under ``rpc_key``."""
    return _encode({"ip_or_host_name": endpoint.host, "rpc_port": endpoint.port})


def decode_rpc(value: bytes, *, name: str) -> RpcEndpoint:
    """The handshake address in a value. Raises ``RemoteProtocolError``."""
    data = _decode(value, name)
    host, port = data.get("ip_or_host_name"), data.get("rpc_port")
    if not isinstance(host, str) or not addresses.is_host(host):
        raise RemoteProtocolError(peer=name, detail="an invalid handshake address")
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port <= addresses.MAX_PORT:
        raise RemoteProtocolError(peer=name, detail="an invalid handshake address")
    return RpcEndpoint(host, port)


def _root(cluster: str) -> str:
    return f"{ROOT}{cluster.rstrip('/')}/" if cluster else ROOT


def _encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"


def _decode(value: bytes, name: str) -> dict[str, Any]:
    if len(value) > MAX_VALUE:
        raise RemoteProtocolError(peer=name, detail=f"a metadata record of {len(value)} bytes")
    try:
        data = json.loads(value)
    except (ValueError, RecursionError):
        raise RemoteProtocolError(peer=name, detail="a metadata record that is not JSON") from None
    if not isinstance(data, dict):
        raise RemoteProtocolError(peer=name, detail="a metadata record that is no JSON object")
    return data
