"""What stands in the metadata store: small JSON records, of six kinds, and claims. Pure.

::

    mooncake/p2p/v1/nodes/<node>                      NodeRecord     leased
    mooncake/p2p/v1/objects/<name>                    ObjectRecord   created by compare-and-swap
    mooncake/p2p/v1/versions/<name>@<manifest digest> ObjectRecord   what the name stood for before
    mooncake/p2p/v1/tags/<name>:<tag>                 TagRecord      moved by compare-and-swap
    mooncake/p2p/v1/replicas/<manifest digest>/<node> ReplicaRecord  leased
    mooncake/p2p/v1/gone/<name>                       GoneRecord     with a lease of its own, which nobody renews
    mooncake/p2p/v1/claims/<what>                     a node's name  leased: it does what is to be done once

Hashes and bitmaps are never there: a record's size does not depend on the object's.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar, get_type_hints

from engine.net.addresses import MAX_PORT, BadAddress, parse
from engine.transports.base import PeerAddress
from p2pstore.errors import RemoteProtocolError
from p2pstore.swarm.gateway import ABROAD, ELSEWHERE, SAME_HOST, SAME_ZONE

PREFIX = "mooncake/p2p/v1/"
NODES = PREFIX + "nodes/"
OBJECTS = PREFIX + "objects/"
VERSIONS = PREFIX + "versions/"
TAGS = PREFIX + "tags/"
REPLICAS = PREFIX + "replicas/"
GONE = PREFIX + "gone/"
CLAIMS = PREFIX + "claims/"

MAX_RECORD_BYTES = 16 * 1024
"""No record comes near; a longer value is not ours."""

MAX_VERSIONS = 1000
"""Versions of one object that are looked at, and told of."""

MAX_NUMBER = 1 << 53
"""Every number of a record is between 0 and this, beyond which JSON's readers do not agree."""


def node_key(node: str) -> str:
    """Where a node's record stands."""
    return NODES + node


def object_key(name: str) -> str:
    """Where an object's record stands."""
    return OBJECTS + name


def version_key(name: str, manifest: str) -> str:
    """Where an earlier version of an object stands; with the beginning of a digest, where all stand that begin so.

    No name has an ``@``: so nothing of another object stands there.
    """
    return f"{VERSIONS}{name}@{manifest}"


def tag_key(name: str, tag: str) -> str:
    """Where a tag of an object stands; with an empty tag, where all of them stand. No name has a ``:``."""
    return f"{TAGS}{name}:{tag}"


def gone_key(name: str) -> str:
    """Where it stands that an object's holders are gone."""
    return GONE + name


def claim_key(what: str) -> str:
    """Where it stands who does something."""
    return CLAIMS + what


def replicas_prefix(manifest: str) -> str:
    """Below which an object's replicas stand."""
    return f"{REPLICAS}{manifest}/"


def replica_key(manifest: str, node: str) -> str:
    """Where one node's replica of an object stands."""
    return replicas_prefix(manifest) + node


@dataclass(frozen=True)
class NodeRecord:
    """How to reach a node: its control and rpc addresses (``host:port``), its data port, and where it is.

    ``host_id`` and ``local_socket`` serve the local transport, ``rdma`` the RDMA one: its devices, as
    ``engine.transports.rdma.addresses`` writes them. ``started`` is seconds since the epoch.
    """

    node: str
    control: str
    segment: str
    data_port: int
    host_id: str = ""
    local_socket: str = ""
    zone: str = ""
    version: str = ""
    started: float = 0.0
    rdma: str = ""


@dataclass(frozen=True)
class ObjectRecord:
    """What a name stands for: the manifest's digest, and what a listing shows. ``created``: seconds since the epoch.

    ``supersedes`` is the digest of what it stood for before, where that was replaced.
    """

    name: str
    manifest: str
    size: int
    chunk_size: int
    chunks: int
    files: int
    kind: str
    hash: str
    creator: str
    created: float
    supersedes: str = ""


@dataclass(frozen=True)
class ReplicaRecord:
    """That a node has part or all of an object: the owner's copy is gold."""

    node: str
    state: str
    role: str


@dataclass(frozen=True)
class TagRecord:
    """A version that was given a name of its own, by the node ``by`` at ``moved`` (seconds since the epoch).

    It has all that is known of the version, so that it leads there whatever becomes of the object's record.
    """

    tag: str
    by: str
    moved: float
    name: str
    manifest: str
    size: int
    chunk_size: int
    chunks: int
    files: int
    kind: str
    hash: str
    creator: str
    created: float

    @property
    def version(self) -> ObjectRecord:
        """The version that it leads to."""
        return ObjectRecord(
            **{field.name: getattr(self, field.name) for field in fields(ObjectRecord) if hasattr(self, field.name)}
        )


@dataclass(frozen=True)
class GoneRecord:
    """An object whose holders all died. ``creator`` registered it; ``noticed``: seconds since the epoch."""

    name: str
    manifest: str
    creator: str
    noticed: float


def _types(cls: Any) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(cls)
    return tuple((field.name, hints[field.name]) for field in fields(cls))


_TYPES: dict[Any, tuple[tuple[str, Any], ...]] = {
    cls: _types(cls) for cls in (NodeRecord, ObjectRecord, ReplicaRecord, TagRecord, GoneRecord)
}
"""The fields of each record with their types: found once, for a listing decodes thousands."""

Record = TypeVar("Record", NodeRecord, ObjectRecord, ReplicaRecord, TagRecord, GoneRecord)


def encode(record: NodeRecord | ObjectRecord | ReplicaRecord | TagRecord | GoneRecord) -> bytes:
    """The record's JSON."""
    return json.dumps(asdict(record), sort_keys=True, separators=(",", ":")).encode()


def decode(cls: type[Record], value: bytes) -> Record | None:
    """The record in ``value``, or None where it is none: somebody else may have written there. Unknown keys pass."""
    if len(value) > MAX_RECORD_BYTES:
        return None
    try:
        data = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    known: dict[str, Any] = {}
    for name, wanted in _TYPES[cls]:
        if name not in data:
            continue
        found = data[name]
        if wanted is float and type(found) is int and abs(found) <= MAX_NUMBER:
            found = float(found)
        if type(found) is not wanted or (wanted in {int, float} and not 0 <= found <= MAX_NUMBER):
            return None
        known[name] = found
    try:
        return cls(**known)
    except TypeError:
        return None


def peer_address(record: NodeRecord) -> PeerAddress:
    """How the engine reaches a node. Raises ``RemoteProtocolError`` for a record without a usable segment name."""
    try:
        host, _ = parse(record.segment)
    except BadAddress:
        host = ""
    if not host or not 0 < record.data_port <= MAX_PORT:
        raise RemoteProtocolError(peer=record.node, detail="its node record has no usable address")
    return PeerAddress(
        segment=record.segment,
        host=host,
        data_port=record.data_port,
        host_id=record.host_id,
        local_socket=record.local_socket,
        rdma=record.rdma,
    )


def distance(mine: NodeRecord, other: NodeRecord) -> int:
    """How far another node is."""
    if mine.host_id and mine.host_id == other.host_id:
        return SAME_HOST
    if not (mine.zone and other.zone):
        return ELSEWHERE
    return SAME_ZONE if mine.zone == other.zone else ABROAD
