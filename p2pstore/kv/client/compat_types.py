"""The plain types of upstream's ``mooncake.store``, under its names: configuration, descriptors, handles, tasks."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any

from engine.memory.copying import address_of
from engine.rpc import messages
from engine.rpc.messages import Disk, LocalDisk, Memory, Replica, SoftPin, Task

MAX_U64 = (1 << 64) - 1

_ID = struct.Struct("<QQ")


class SoftPinAction(IntEnum):
    """What a put does to a key's soft pin."""

    PRESERVE = SoftPin.PRESERVE
    ENABLE = SoftPin.ENABLE
    DISABLE = SoftPin.DISABLE


class ObjectDataType(IntEnum):
    """What a value is, for the master's statistics."""

    UNKNOWN = 0
    KVCACHE = 1
    TENSOR = 2
    WEIGHT = 3
    SAMPLE = 4
    ACTIVATION = 5
    GRADIENT = 6
    OPTIMIZER_STATE = 7
    METADATA = 8
    GENERAL = 9


class ReplicaStatus(IntEnum):
    """Of a replica."""

    UNDEFINED = 0
    INITIALIZED = 1
    PROCESSING = 2
    COMPLETE = 3
    REMOVED = 4
    FAILED = 5


class TaskType(IntEnum):
    """Of a task."""

    REPLICA_COPY = 0
    REPLICA_MOVE = 1


class TaskStatus(IntEnum):
    """Of a task."""

    PENDING = 0
    PROCESSING = 1
    FAILED = 2
    SUCCESS = 3


class ReplicateConfig:
    """How a value is to be kept. Takes the fields of all releases: ``with_soft_pin``, too, which 0.3.13 dropped."""

    __slots__ = (
        "_ttl", "data_type", "dfs_replica_num", "group_ids", "nof_replica_num", "prefer_alloc_in_same_node",
        "preferred_nof_segments", "preferred_segment", "preferred_segments", "replica_num", "soft_pin_action",
        "with_hard_pin",
    )  # fmt: skip

    def __init__(self) -> None:
        self.replica_num = 1
        self.nof_replica_num = 0
        self.dfs_replica_num = 0
        self.soft_pin_action = SoftPinAction.PRESERVE
        self.with_hard_pin = False
        self.preferred_segments: list[str] = []
        self.preferred_segment = ""
        self.preferred_nof_segments: list[str] = []
        self.prefer_alloc_in_same_node = False
        self.data_type = ObjectDataType.UNKNOWN
        self.group_ids: list[str] | None = None
        self._ttl: int | None = None

    @property
    def soft_pin_ttl_ms(self) -> int | None:
        """Milliseconds of a soft pin; None for the master's own."""
        return self._ttl

    @soft_pin_ttl_ms.setter
    def soft_pin_ttl_ms(self, value: int | None) -> None:
        if value is not None and (not isinstance(value, int) or not 0 <= value <= MAX_U64):
            raise TypeError(f"soft_pin_ttl_ms must be None or a number of milliseconds, and is {value!r}")
        self._ttl = value

    @property
    def with_soft_pin(self) -> bool:
        """Until 0.3.12: whether the value is soft-pinned."""
        return self.soft_pin_action is SoftPinAction.ENABLE

    @with_soft_pin.setter
    def with_soft_pin(self, value: bool) -> None:
        self.soft_pin_action = SoftPinAction.ENABLE if value else SoftPinAction.PRESERVE

    def copy(self) -> ReplicateConfig:
        """The same once more."""
        made = ReplicateConfig()
        for name in self.__slots__:
            setattr(made, name, getattr(self, name))
        return made

    def neutral(self) -> messages.ReplicateConfig:
        """As calls take it."""
        return messages.ReplicateConfig(
            replica_num=self.replica_num,
            nof_replica_num=self.nof_replica_num,
            dfs_replica_num=self.dfs_replica_num,
            soft_pin_action=int(self.soft_pin_action),
            soft_pin_ttl_ms=self._ttl,
            with_hard_pin=bool(self.with_hard_pin),
            preferred_segments=list(self.preferred_segments),
            preferred_segment=self.preferred_segment,
            preferred_nof_segments=list(self.preferred_nof_segments),
            prefer_alloc_in_same_node=bool(self.prefer_alloc_in_same_node),
            data_type=int(self.data_type),
            group_ids=None if self.group_ids is None else list(self.group_ids),
        )

    def __repr__(self) -> str:
        fields = (
            "replica_num",
            "soft_pin_action",
            "soft_pin_ttl_ms",
            "with_hard_pin",
            "preferred_segments",
            "group_ids",
        )
        return f"ReplicateConfig({', '.join(f'{name}={getattr(self, name)!r}' for name in fields)})"


class BufferHandle(bytearray):
    """The bytes of a value, which stay as they are whatever becomes of the key."""

    def ptr(self) -> int:
        """Where they begin."""
        return address_of(self)

    def size(self) -> int:
        """How many they are."""
        return len(self)


class Descriptor:
    """A place in memory."""

    def __init__(self, place: Memory | None = None) -> None:
        self.size = place.size if place is not None else 0
        self.buffer_address = place.address if place is not None else 0
        self.transport_endpoint = place.endpoint if place is not None else ""

    def __repr__(self) -> str:
        return (
            f"<Descriptor size={self.size} buffer_address={self.buffer_address} "
            f"transport_endpoint={self.transport_endpoint}>"
        )


class MemoryDescriptor:
    """A replica in memory."""

    def __init__(self, place: Memory) -> None:
        self.buffer_descriptor = Descriptor(place)


class DiskDescriptor:
    """A replica in a file."""

    def __init__(self, place: Disk) -> None:
        self.file_path = place.path
        self.object_size = place.size


class ReplicaDescriptor:
    """Where a replica lies, and how it stands."""

    def __init__(self, replica: Replica) -> None:
        self._place = replica.place
        self.status = ReplicaStatus(replica.status)

    def is_memory_replica(self) -> bool:
        """Whether it lies in memory."""
        return isinstance(self._place, Memory)

    def is_disk_replica(self) -> bool:
        """Whether it lies in a file that every client can open."""
        return isinstance(self._place, Disk)

    def is_local_disk_replica(self) -> bool:
        """Whether it lies on the disk of one client."""
        return isinstance(self._place, LocalDisk)

    def get_memory_descriptor(self) -> MemoryDescriptor:
        """Its place in memory. Raises ``TypeError`` where it lies elsewhere."""
        if not isinstance(self._place, Memory):
            raise TypeError("the replica does not lie in memory")
        return MemoryDescriptor(self._place)

    def get_disk_descriptor(self) -> DiskDescriptor:
        """Its file. Raises ``TypeError`` where it lies elsewhere."""
        if not isinstance(self._place, Disk):
            raise TypeError("the replica does not lie in a file")
        return DiskDescriptor(self._place)

    def __repr__(self) -> str:
        return f"<ReplicaDescriptor {self._place!r} {self.status.name}>"


class QueryTaskResponse:
    """How a task stands."""

    def __init__(self, task: Task) -> None:
        self.id = pair(task.id)
        self.type = TaskType(task.type)
        self.status = TaskStatus(task.status)
        self.created_at_ms_epoch = task.created_ms
        self.last_updated_at_ms_epoch = task.updated_ms
        self.assigned_client = pair(task.client)
        self.message = task.message

    def __repr__(self) -> str:
        return f"<QueryTaskResponse {self.id} {self.type.name} {self.status.name} {self.message!r}>"


def pair(identity: bytes) -> tuple[int, int]:
    """An id as upstream's interface has it."""
    first, second = _ID.unpack(identity)
    return first, second


def identity(both: Any) -> bytes:
    """An id as calls have it. Raises ``TypeError`` and ``struct.error``."""
    first, second = both
    return _ID.pack(first, second)
