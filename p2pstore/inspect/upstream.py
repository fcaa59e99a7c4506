"""Upstream Mooncake's records in etcd, from key and value to fields; pure.

Sources: kvcache-ai/Mooncake, ``mooncake-transfer-engine/src/transfer_metadata.cpp`` (``rpc_meta``, ``ram``),
``mooncake-p2p-store/src/p2pstore/metadata.go`` (``checkpoint``), its TENT runtime (``tent``) and the high availability
of ``mooncake-store`` (``master_view``, ``oplog``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from p2pstore.inspect.values import Malformed, count, items, parse_object, preview, printable, scalars, text

MAX_PORT = 65535


@dataclass(frozen=True)
class Matched:
    """The family of a key, and what the key itself says: ``name``, and ``cluster`` where it has one."""

    family: str
    fields: dict[str, Any]


_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("checkpoint", re.compile(r"mooncake/checkpoint/(?P<name>.+)", re.DOTALL)),
    ("tent", re.compile(r"mooncake/tent/(?P<name>.+)", re.DOTALL)),
    ("rpc_meta", re.compile(r"mooncake/(?:(?P<cluster>[^/]+)/)?rpc_meta/(?P<name>.+)", re.DOTALL)),
    ("segment", re.compile(r"mooncake/(?:(?P<cluster>[^/]+)/)?ram/(?P<name>.+)", re.DOTALL)),
    ("master_view", re.compile(r"mooncake-store/(?P<cluster>.+)/master_view", re.DOTALL)),
    ("oplog", re.compile(r"/oplog/(?P<cluster>[^/]+)/(?P<name>.+)", re.DOTALL)),
)

# A segment whose name holds a slash has no "ram/" in its key, so it can look like anything, a checkpoint included.
_SLASHED_SEGMENT = re.compile(r"mooncake/(?P<name>[^/]+/.+)", re.DOTALL)


def match(key: str, value: bytes) -> Matched | None:
    """The family that a key belongs to, or None, and its parts made printable."""
    found = parts(key, value)
    if found is None:
        return None
    family, fields = found
    return Matched(family, {name: printable(part) for name, part in fields.items()})


def parts(key: str, value: bytes) -> tuple[str, dict[str, str]] | None:
    """The family that a key belongs to, or None, and its parts as they are.

    The value is asked only where keys of two families look alike.
    """
    slashed = _SLASHED_SEGMENT.fullmatch(key)
    for family, pattern in _PATTERNS:
        found = pattern.fullmatch(key)
        if found is None:
            continue
        if family == "checkpoint" and slashed and _is_segment(value):
            break
        return family, {name: part for name, part in found.groupdict().items() if part is not None}
    if slashed and _is_segment(value):
        return "segment", {"name": slashed["name"]}
    return None


def _is_segment(value: bytes) -> bool:
    try:
        data = parse_object(value)
    except Malformed:
        return False
    return isinstance(data.get("protocol"), str) and "shards" not in data


def _rpc_meta(value: bytes) -> dict[str, Any]:
    data = parse_object(value)
    host, port = text(data, "ip_or_host_name"), count(data, "rpc_port")
    if not host or not 0 < port <= MAX_PORT:
        raise Malformed(f"no address: {host!r}, port {port}")
    return {"address": f"[{host}]:{port}" if ":" in host else f"{host}:{port}"}


def _segment(value: bytes) -> dict[str, Any]:
    """A segment descriptor, with upstream's own rules for a valid one."""
    data = parse_object(value)
    protocol = text(data, "protocol")
    total = 0
    buffers = items(data, "buffers")
    for buffer in buffers:
        length = count(buffer, "length")
        if not text(buffer, "name") or not count(buffer, "addr") or not length:
            raise Malformed("a buffer without name, address or length")
        total += length
    fields: dict[str, Any] = {"protocol": protocol, "buffers": len(buffers), "bytes": total}
    if protocol == "tcp":
        fields["tcp_data_port"] = count(data, "tcp_data_port", 0)
        fields["tcp_proto_version"] = count(data, "tcp_proto_version", 1)
    devices = [text(device, "name") for device in items(data, "devices")]
    if devices:
        fields["devices"] = devices
    if "timestamp" in data:
        fields["timestamp"] = text(data, "timestamp")
    return fields


def _checkpoint(value: bytes) -> dict[str, Any]:
    """A P2P Store payload; ``gold`` and ``replicas`` map a segment's name to the number of shards that it holds."""
    data = parse_object(value)
    sizes = data.get("size_list")
    if not isinstance(sizes, list):
        raise Malformed("'size_list' is no list")
    shards = items(data, "shards")
    gold: Counter[str] = Counter()
    replicas: Counter[str] = Counter()
    homeless = total = 0
    for shard in shards:
        total += count(shard, "size")
        for holders, field in ((gold, "gold"), (replicas, "replica_list")):
            holders.update({text(location, "segment_name") for location in items(shard, field)})
        homeless += not (shard.get("gold") or shard.get("replica_list"))
    size = count(data, "size")
    if shards and total != size:
        raise Malformed(f"its shards make {total} bytes, and it says {size}")
    return {
        "size": size,
        "buffers": len(sizes),
        "max_shard_size": count(data, "max_shard_size"),
        "shards": len(shards),
        "shards_without_holder": homeless,
        "gold": dict(sorted(gold.items())),
        "replicas": dict(sorted(replicas.items())),
    }


def _tent(value: bytes) -> dict[str, Any]:
    """A TENT segment; its scalar fields, because its layout differs between releases."""
    return {"fields": scalars(parse_object(value))}


def _master_view(value: bytes) -> dict[str, Any]:
    try:
        address = value.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise Malformed("its value is no text") from error
    if not address:
        raise Malformed("it names no address")
    return {"address": printable(address)}


def _oplog(value: bytes) -> dict[str, Any]:
    return {"size": len(value), "preview": preview(value)}


_DECODERS: dict[str, Callable[[bytes], dict[str, Any]]] = {
    "rpc_meta": _rpc_meta,
    "segment": _segment,
    "checkpoint": _checkpoint,
    "tent": _tent,
    "master_view": _master_view,
    "oplog": _oplog,
}


def decode(family: str, value: bytes) -> dict[str, Any]:
    """The fields of a record of upstream's. Raises ``Malformed``."""
    return _DECODERS[family](value)
