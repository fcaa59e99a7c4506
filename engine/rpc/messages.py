"""What masters and clients of the pooled store tell each other, in one form for every generation.

The order of the fields is that of 0.3.13, so that the codec reads and writes them as plain tuples. Ids of clients,
segments and tasks are 16 bytes as they stand on the wire: two little-endian u64.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

NO_ID = bytes(16)
"""The id that nobody has."""

DEFAULT_TENANT = "default"
"""Whose a key is where the call names no tenant: calls of 0.3.11 and before cannot."""


class Status(IntEnum):
    """Of a replica."""

    UNDEFINED = 0
    INITIALIZED = 1
    PROCESSING = 2
    COMPLETE = 3
    REMOVED = 4
    FAILED = 5


class ClientStatus(IntEnum):
    """What a ping is answered with."""

    UNDEFINED = 0
    OK = 1
    NEED_REMOUNT = 2


class Kind(IntEnum):
    """Of which replicas a put ends or is revoked."""

    MEMORY = 0
    DISK = 1
    LOCAL_DISK = 2
    NOF_SSD = 3
    ALL = 4
    DFS = 100


class SoftPin(IntEnum):
    """What a put does to a key's soft pin."""

    PRESERVE = 0
    ENABLE = 1
    DISABLE = 2


class TaskType(IntEnum):
    """What a client is asked to do with a replica."""

    COPY = 0
    MOVE = 1


class TaskStatus(IntEnum):
    """Of a task."""

    PENDING = 0
    PROCESSING = 1
    FAILED = 2
    SUCCESS = 3


class SegmentStatus(IntEnum):
    """Of a segment; 0.3.9 knows the first two, and UNMOUNTING as 2."""

    UNDEFINED = 0
    OK = 1
    DRAINING = 2
    DRAINED = 3
    GRACEFULLY_UNMOUNTING = 4
    UNMOUNTING = 5


class Segment(NamedTuple):
    """Memory that a client gives to the pool."""

    id: bytes
    name: str
    base: int
    size: int
    endpoint: str
    protocol: str = "tcp"
    host_id: str = ""


class NofSegment(NamedTuple):
    """An NVMe-oF device that a client gives to the pool."""

    id: bytes
    name: str
    base: int
    size: int
    endpoint: str


class NofOwner(NamedTuple):
    """Whose such a device is."""

    segment: bytes
    client: bytes


class Memory(NamedTuple):
    """A place in a segment."""

    size: int
    address: int
    protocol: str
    endpoint: str


class Nof(NamedTuple):
    """A place on an NVMe-oF device; 0.3.9 has none."""

    size: int
    address: int
    protocol: str
    endpoint: str


class Disk(NamedTuple):
    """A file that every client can open."""

    path: str
    size: int


class LocalDisk(NamedTuple):
    """A value on the disk of one client, which reads it for others."""

    client: bytes
    size: int
    endpoint: str


class Dfs(NamedTuple):
    """A place in a file of a distributed file system; from 0.3.13 on."""

    path: str
    offset: int
    size: int
    aligned: int
    shard: int


Place = Memory | Nof | Disk | LocalDisk | Dfs


class Replica(NamedTuple):
    """Where a value lies, or is to be written."""

    id: int
    place: Place
    status: int


class ReplicateConfig(NamedTuple):
    """How a value is to be kept."""

    replica_num: int = 1
    nof_replica_num: int = 0
    dfs_replica_num: int = 0
    soft_pin_action: int = SoftPin.PRESERVE
    soft_pin_ttl_ms: int | None = None
    with_hard_pin: bool = False
    preferred_segments: tuple[str, ...] | list[str] = ()
    preferred_segment: str = ""
    preferred_nof_segments: tuple[str, ...] | list[str] = ()
    prefer_alloc_in_same_node: bool = False
    data_type: int = 0
    host_id: str = ""
    group_ids: tuple[str, ...] | list[str] | None = None


class ObjectMeta(NamedTuple):
    """A key whose value was written; the checksum is None where the client says none, or cannot (before 0.3.13)."""

    key: str
    checksum: int | None = None


class Replicas(NamedTuple):
    """What a reader is told of a value."""

    replicas: list[Replica]
    lease_ms: int
    checksum: int | None = None


class Lone(NamedTuple):
    """A value in one place in memory, as nearly all are, without the nesting that takes most of the time of an answer.

    Where an answer has ``Replicas``, or a list of ``Replica``, this is written in the same bytes.
    """

    id: int
    size: int
    address: int
    owner: tuple[str, str]
    """Protocol and endpoint; best one object for all that lies in a segment."""
    status: int
    lease_ms: int = 0
    checksum: int | None = None

    @property
    def replicas(self) -> list[Replica]:
        """The same, nested."""
        return [Replica(self.id, Memory(self.size, self.address, *self.owner), self.status)]


class StorageConfig(NamedTuple):
    """Where clients keep files that every client can open; an empty path means that they keep none."""

    root: str = ""
    eviction: bool = True
    quota: int = 0


class Ping(NamedTuple):
    """What a client hears each second."""

    view: int
    status: int


class TaskAssignment(NamedTuple):
    """A copy or move that a client is to carry out; ``payload`` is JSON. 0.3.9 has no ``retries``."""

    id: bytes
    type: int
    payload: str
    created_ms: int
    retries: int = 10


class TaskDone(NamedTuple):
    """What became of a task."""

    id: bytes
    status: int
    message: str


class Task(NamedTuple):
    """What whoever asks is told of a task."""

    id: bytes
    type: int
    status: int
    created_ms: int
    updated_ms: int
    client: bytes
    message: str


class CopyPlan(NamedTuple):
    """From where to where a client copies."""

    source: Replica
    targets: list[Replica]


class MovePlan(NamedTuple):
    """From where to where a client moves; without a target a replica is there already."""

    source: Replica
    target: Replica | None


class OffloadItem(NamedTuple):
    """A value that a client moves to its disk, or back; before 0.3.12 the tenant is the default one."""

    tenant: str
    key: str
    size: int


class StoredObject(NamedTuple):
    """Where a client's disk has a value."""

    bucket: int
    offset: int
    key_size: int
    size: int
    endpoint: str
