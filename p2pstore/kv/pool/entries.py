"""What the index has of a value. Small on purpose: with its key, some 450 bytes a value.

Nearly every value has one replica, in memory, and nothing special about it. So that replica stands in the entry itself
and not in a list, and what few values have is in an object of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engine.rpc.messages import LocalDisk, Memory, Replica, Status
from p2pstore.kv.pool.clients import Client, Disk
from p2pstore.kv.pool.segments import NOWHERE, Mounted

DISK_IDS = 1 << 63
"""Ids of replicas on disks begin here; those in memory are made of the segment's number and the offset."""

COMPLETE, PROCESSING = Status.COMPLETE, Status.PROCESSING

made = tuple.__new__
"""Makes a named tuple in half the time that its own ``__new__`` takes; answers consist of them."""

new = object.__new__


class Held:
    """A replica in memory. ``holds`` counts the tasks that read it; while there are any it stays."""

    __slots__ = ("holds", "offset", "ready", "segment")
    many = False

    def __init__(self, segment: Mounted, offset: int) -> None:
        self.segment = segment
        self.offset = offset
        self.ready = False
        self.holds = 0

    @property
    def readable(self) -> bool:
        """Whether it is whole, and its owner there."""
        return self.ready and self.segment.alive

    def described(self, size: int) -> Replica:
        """As the wire has it."""
        segment, offset = self.segment, self.offset
        place = made(Memory, (size, segment.base + offset, segment.protocol, segment.endpoint))
        status = COMPLETE if self.ready else PROCESSING
        return made(Replica, (segment.first_id | offset, place, status))


class OnDisk:
    """A replica on the disk of a client, which reads it for others."""

    __slots__ = ("client", "disk", "endpoint", "holds", "number", "size")
    ready = True

    def __init__(self, client: Client, disk: Disk, size: int, endpoint: str, number: int) -> None:
        self.client = client
        self.disk = disk
        self.size = size
        self.endpoint = endpoint
        self.number = number
        self.holds = 0

    @property
    def readable(self) -> bool:
        """Whether its owner is there."""
        return self.client.alive and not self.disk.gone

    def described(self) -> Replica:
        """As the wire has it."""
        return Replica(DISK_IDS | self.number, LocalDisk(self.client.id, self.size, self.endpoint), Status.COMPLETE)


class Copies(list["Held | OnDisk"]):
    """The replicas of a value that has several, or one on a disk, or none any more."""

    __slots__ = ()
    many = True
    ready = False
    """Never as a whole: whoever has no time for details looks at ``many`` next."""
    segment = NOWHERE


GONE = Copies()
"""The replicas of a value that was removed, evicted or replaced."""

Place = Held | Copies


class Group:
    """Values that are used, and evicted, together."""

    __slots__ = ("members", "name", "until")

    def __init__(self, name: str) -> None:
        self.name = name
        self.until = 0.0
        self.members: dict[Entry, None] = {}


class More:
    """What few values have. ``pinned_until`` is the end of a soft pin; ``pin_s`` what it is to be once readable."""

    __slots__ = ("data_type", "group", "hard", "pin_s", "pinned_until")

    def __init__(self) -> None:
        self.data_type = 0
        self.group: Group | None = None
        self.hard = False
        self.pin_s = 0.0
        self.pinned_until = 0.0


class TenantUse(NamedTuple):
    """What a tenant takes of the pool's memory, and may take; without a quota that is None. Bytes."""

    name: str
    quota: int | None
    used: int


class Tenant:
    """The keys of one tenant, and the memory that they take."""

    __slots__ = ("groups", "keys", "name", "quota", "record_head", "used")

    def __init__(self, name: str, quota: int = 0) -> None:
        self.name = name
        self.quota = quota
        self.record_head = b""
        """How the records of its values begin, once there is one."""
        self.used = 0
        self.keys: dict[str, Entry] = {}
        self.groups: dict[str, Group] = {}


class Entry:
    """A value, or one that is being written. ``until`` is when its lease ends; values are evicted in that order."""

    __slots__ = ("checksum", "key", "more", "place", "size", "tenant", "until", "writer")

    def __init__(self, key: str, tenant: Tenant, size: int, writer: bytes, place: Place) -> None:
        self.key = key
        self.tenant = tenant
        self.size = size
        self.writer = writer
        self.place = place
        self.until = 0.0
        self.checksum: int | None = None
        self.more: More | None = None

    @property
    def replicas(self) -> list[Held | OnDisk]:
        """All of its replicas."""
        place = self.place
        return [place] if isinstance(place, Held) else list(place)

    @property
    def memory(self) -> list[Held]:
        """Those in memory."""
        place = self.place
        return [place] if isinstance(place, Held) else [each for each in place if isinstance(each, Held)]

    @property
    def disks(self) -> list[OnDisk]:
        """Those on disks."""
        place = self.place
        return [] if isinstance(place, Held) else [each for each in place if isinstance(each, OnDisk)]

    @property
    def readable(self) -> bool:
        """Whether anybody can read it now."""
        return any(replica.readable for replica in self.replicas)

    @property
    def leased_until(self) -> float:
        """When its lease ends: that of its group, if it has one and that is longer."""
        group = self.more.group if self.more else None
        return max(self.until, group.until) if group else self.until

    @property
    def hard(self) -> bool:
        """Whether it may never be evicted."""
        return self.more is not None and self.more.hard

    def soft(self, now: float) -> bool:
        """Whether it is evicted only when nothing else is left."""
        return self.more is not None and self.more.pinned_until > now

    def described(self) -> list[Replica]:
        """The replicas that can be read, memory first, as the wire has them."""
        found = [held.described(self.size) for held in self.memory if held.readable]
        return found + [disk.described() for disk in self.disks if disk.readable]


def fresh(
    places: Sequence[tuple[Mounted, int]], keys: Sequence[str], tenant: Tenant, size: int, writer: bytes
) -> list[Entry]:
    """New entries of one size, with nothing special about them, a place and a key each.

    A batch has many: without their ``__init__`` they take half the time.
    """
    found = []
    for (segment, offset), key in zip(places, keys, strict=False):
        held = new(Held)
        held.segment = segment
        held.offset = offset
        held.ready = False
        held.holds = 0
        entry = new(Entry)
        entry.key = key
        entry.tenant = tenant
        entry.size = size
        entry.writer = writer
        entry.place = held
        entry.until = 0.0
        entry.checksum = None
        entry.more = None
        found.append(entry)
    return found


def placed(replicas: list[Held | OnDisk]) -> Place:
    """The shortest form in which an entry can have these replicas."""
    if len(replicas) == 1:
        only = replicas[0]
        if isinstance(only, Held):
            return only
    return Copies(replicas)
