"""Values on the disks of clients: what is to be written there, and what was.

The master asks in the answers to heartbeats, and the client says later what became of it. Meanwhile the replica that it
reads stays. A value that is removed while it is being written to a disk is not to be found there afterwards, whatever
the client says: its memory may have been another value's before it was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engine.rpc.codes import Code
from engine.rpc.messages import DEFAULT_TENANT, Kind, OffloadItem, StoredObject
from p2pstore.kv.pool.clients import Disk
from p2pstore.kv.pool.entries import Copies, Entry, Held, OnDisk
from p2pstore.kv.pool.index import Index
from p2pstore.kv.pool.promotions import Promotions

MAX_CANCELLED = 100_000
"""Writes to disks that are to count for nothing; each ends by itself, or with its time."""


class _Offload:
    """A value that a client is to write to its disk. ``fetched`` once it was told."""

    __slots__ = ("client", "disk", "fetched", "source", "started")

    def __init__(self, client: bytes, disk: Disk, source: Held, started: float) -> None:
        self.client = client
        self.disk = disk
        self.source = source
        self.started = started
        self.fetched = False


class _Name(NamedTuple):
    client: bytes
    tenant: str
    key: str


class Disks:
    """The disks of all clients of one index."""

    def __init__(self, index: Index, promotions: Promotions) -> None:
        self._index = index
        self._promotions = promotions
        self._offloads: dict[Entry, _Offload] = {}
        self._cancelled: dict[_Name, float] = {}

    # -- disks

    def mount(self, client: bytes, *, offloading: bool) -> Code:
        """A client offers its disk."""
        if not self._index.settings.offload:
            return Code.OFFLOAD_DISABLED
        owner = self._index.client(client)
        if owner.disk is None:
            owner.disk = Disk(offloading=offloading)
        return Code.OK

    def unmount(self, client: bytes) -> Code:
        """It takes it back, with all that is there."""
        if not self._index.settings.offload:
            return Code.OFFLOAD_DISABLED
        owner = self._index.clients.get(client)
        if owner is not None and owner.disk is not None:
            owner.disk.gone = True
            owner.disk = None
            self._index.disks_gone = True
            self._forget_of(client)
        return Code.OK

    def report(self, client: bytes, capacity: int) -> Code:
        """How much its disk takes."""
        disk = self._disk(client)
        if capacity < 0:
            return Code.BAD_PARAMS
        if disk is None:
            return Code.NO_SEGMENT
        disk.capacity = capacity
        return Code.OK

    def poll_remove_all(self, client: bytes) -> bool:
        """Whether its disk is to be cleared; true once."""
        disk = self._disk(client)
        if disk is None or not disk.remove_all:
            return False
        disk.remove_all = False
        return True

    # -- to a disk

    def offer(self, entry: Entry) -> bool:
        """Ask the owner of a value's memory to write it to its disk; tells whether it is asked, or was before."""
        if entry in self._offloads:
            return True
        index = self._index
        if entry.disks:
            return False
        for held in entry.memory:
            disk = self._disk(held.segment.client)
            if disk is None or not disk.offloading or not held.readable:
                continue
            if len(disk.offloads) < index.settings.offload_queue:
                held.holds += 1
                disk.offloads[entry.tenant.name, entry.key] = OffloadItem(entry.tenant.name, entry.key, entry.size)
                self._offloads[entry] = _Offload(held.segment.client, disk, held, index.clock())
                index.stats.offload_queued += 1
                return True
        return False

    def heartbeat(self, client: bytes, *, offloading: bool) -> list[OffloadItem] | Code:
        """What a client is to write to its disk now; nothing where it says that it cannot."""
        disk = self._disk(client)
        if disk is None:
            return Code.NO_SEGMENT
        disk.offloading = offloading
        items = list(disk.offloads.values())
        disk.offloads.clear()
        for item in items:
            entry = self._index.tenants.entry(item.tenant, item.key)
            offload = self._offloads.get(entry) if entry is not None else None
            if offload is not None and offload.client == client:
                offload.fetched = True
                if not offloading and entry is not None:
                    self._end_offload(entry)
        return items if offloading else []

    def offloaded(self, client: bytes, items: Sequence[OffloadItem], stored: Sequence[StoredObject]) -> Code:
        """What it wrote, or did not (a negative size), or has on its disk from before."""
        if len(items) != len(stored):
            return Code.BAD_PARAMS
        disk = self._disk(client)
        for item, place in zip(items, stored, strict=True):
            cancelled = self._cancelled.pop(_Name(client, item.tenant, item.key), None)
            entry = self._index.tenants.entry(item.tenant, item.key)
            asked = entry is not None and entry in self._offloads and self._offloads[entry].client == client
            if asked and entry is not None:
                self._end_offload(entry)
            if place.size >= 0 and disk is not None and cancelled is None:
                self._written(client, item, place, entry, asked=asked)
        return Code.NO_SEGMENT if disk is None else Code.OK

    def evict(
        self, client: bytes, keys: Sequence[str], kind: int = Kind.LOCAL_DISK, tenant: str = DEFAULT_TENANT
    ) -> list[Code]:
        """A client does not have these on its disk any more."""
        if kind not in {Kind.DISK, Kind.LOCAL_DISK}:
            return [Code.BAD_PARAMS] * len(keys)
        codes = []
        for key in keys:
            entry = self._index.tenants.entry(tenant, key)
            codes.append(Code.NOT_FOUND if entry is None else Code.OK)
            if entry is not None and kind == Kind.LOCAL_DISK:
                leaving = [disk for disk in entry.disks if disk.client.id == client]
                if leaving:
                    self._index.tell(entry, "evicted", "by its disk", client)
                    self._index.without(entry, leaving)
        return codes

    # -- others, and time

    def refuses(self, entry: Entry) -> bool:
        """Whether a value must not be replaced now; one that only waits to be written to a disk waits no more."""
        offload = self._offloads.get(entry)
        if offload is not None and not offload.fetched:
            offload.disk.offloads.pop((entry.tenant.name, entry.key), None)
            self._end_offload(entry)
        return entry in self._offloads or self._promotions.has(entry)

    def cancel(self, entry: Entry) -> None:
        """A value goes: what a client is doing with it counts for nothing."""
        name = (entry.tenant.name, entry.key)
        offload = self._offloads.get(entry)
        if offload is not None:
            offload.disk.offloads.pop(name, None)
            self._end_offload(entry)
            if offload.fetched and len(self._cancelled) < MAX_CANCELLED:
                self._cancelled[_Name(offload.client, *name)] = self._index.clock() + self._index.settings.put_release
        self._promotions.cancel(entry)

    def tick(self, now: float) -> None:
        """Give up what clients did not end."""
        limit = now - self._index.settings.put_release
        for entry, offload in list(self._offloads.items()):
            if offload.started > limit:
                break
            self.cancel(entry)
        self._promotions.give_up_late(limit)
        for name, until in list(self._cancelled.items()):
            if until > now:
                break
            del self._cancelled[name]

    def due(self) -> float | None:
        """When to look again."""
        if self._offloads or len(self._promotions) or self._cancelled:
            return self._index.clock() + self._index.settings.put_release / 10
        return None

    # -- how

    def _disk(self, client: bytes) -> Disk | None:
        owner = self._index.clients.get(client)
        return owner.disk if owner is not None else None

    def _end_offload(self, entry: Entry) -> None:
        self._offloads.pop(entry).source.holds -= 1

    def _written(
        self, client: bytes, item: OffloadItem, place: StoredObject, entry: Entry | None, *, asked: bool
    ) -> None:
        index = self._index
        owner = index.client(client)
        disk = owner.disk
        if disk is None:
            return
        known = next((each for each in entry.disks if each.client is owner), None) if entry is not None else None
        replica = OnDisk(owner, disk, place.size, place.endpoint, index.next_disk_number())
        if known is not None and entry is not None:
            if known.endpoint != place.endpoint:  # the client came back at another address
                known.endpoint = place.endpoint
                index.changed(entry)
        elif entry is None:
            space = index.tenants.for_put(item.tenant)
            if space is not None and place.size > 0 and item.key and not index.full(item.key):
                entry = Entry(item.key, space, index.shared.size(place.size), owner.id, Copies([replica]))
                disk.used += place.size
                index.have(entry, index.clock())
                index.changed(entry)
        elif place.size == entry.size and (asked or _left_alone(entry)):
            index.extend(entry, replica)
            index.stats.offload_done += asked

    def _forget_of(self, client: bytes) -> None:
        """A disk went: nothing is asked of it any more."""
        for entry, offload in list(self._offloads.items()):
            if offload.client == client:
                self._end_offload(entry)
        self._promotions.forget_of(client)


def _left_alone(entry: Entry) -> bool:
    """Whether a value was whole, and all who had it are silent: then a client that has it on its disk is believed."""
    return all(replica.ready and not replica.readable for replica in entry.replicas)
