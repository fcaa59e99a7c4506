"""Values on the disks of clients: what is to be written there, what was, and what comes back to memory.

The master asks in the answers to heartbeats, and the client says later what became of it. Meanwhile the replica that it
reads stays. A value that is removed while it is being written to a disk is not to be found there afterwards, whatever
the client says: its memory may have been another value's before it was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from engine.rpc.codes import Code
from engine.rpc.messages import DEFAULT_TENANT, Kind, OffloadItem, Replica, StoredObject
from p2pstore.kv.pool.clients import Disk
from p2pstore.kv.pool.entries import Copies, Entry, Held, OnDisk
from p2pstore.kv.pool.index import Index
from p2pstore.kv.pool.settings import PROMOTIONS_A_HEARTBEAT
from p2pstore.kv.pool.tenants import room_in

MAX_HITS = 100_000
"""Values on disks whose reads are counted; then counting begins anew."""

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


class _Promotion:
    """A value that a client is to bring from its disk to memory; ``staged`` once it has begun."""

    __slots__ = ("client", "disk", "staged", "started")

    def __init__(self, client: bytes, disk: Disk, started: float) -> None:
        self.client = client
        self.disk = disk
        self.staged: Held | None = None
        self.started = started


class _Name(NamedTuple):
    client: bytes
    tenant: str
    key: str


class Disks:
    """The disks of all clients of one index."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._offloads: dict[Entry, _Offload] = {}
        self._cancelled: dict[_Name, float] = {}
        self._promotions: dict[Entry, _Promotion] = {}
        self._hits: dict[Entry, int] = {}

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
            entry = self._entry(item.tenant, item.key)
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
            entry = self._entry(item.tenant, item.key)
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
            entry = self._entry(tenant, key)
            codes.append(Code.NOT_FOUND if entry is None else Code.OK)
            if entry is not None and kind == Kind.LOCAL_DISK:
                leaving = [disk for disk in entry.disks if disk.client.id == client]
                if leaving:
                    self._index.tell(entry, "evicted", "by its disk", client)
                    self._index.without(entry, leaving)
        return codes

    # -- back to memory

    def hit(self, entries: Iterable[Entry]) -> None:
        """These were just read from a disk. Who is read often is brought back."""
        index, stats = self._index, self._index.stats
        for entry in entries:
            hits = self._hits[entry] = self._hits.get(entry, 0) + 1
            if hits < index.settings.promotion_hits:
                stats.promotion_rejected_frequency += 1
            elif index.segments.used >= index.settings.high_watermark * index.segments.capacity:
                stats.promotion_rejected_watermark += 1
            elif len(self._promotions) >= index.settings.promotion_queue:
                stats.promotion_rejected_cap += 1
            elif entry not in self._promotions:
                self._promote(entry)
        if len(self._hits) > MAX_HITS:
            self._hits.clear()

    def promotions(self, client: bytes) -> list[OffloadItem] | Code:
        """What a client is to bring back now."""
        disk = self._disk(client)
        if disk is None:
            return Code.NO_SEGMENT
        names = list(disk.promotions)[:PROMOTIONS_A_HEARTBEAT]
        return [disk.promotions.pop(name) for name in names]

    def promotion_start(
        self, client: bytes, key: str, size: int, preferred: Sequence[str] = (), tenant: str = DEFAULT_TENANT
    ) -> Replica | Code:
        """Where in memory a value is to be written."""
        found = self._promoted(client, key, tenant)
        if isinstance(found, Code):
            return found
        entry, promotion = found
        if size != entry.size:
            return Code.BAD_PARAMS
        if promotion.staged is not None or entry.memory:
            return Code.NOT_READY
        index = self._index
        if entry.tenant.quota and not room_in(entry.tenant, size):
            return Code.QUOTA
        places = index.segments.allocate(size, 1, preferred, "")
        if not places:
            return Code.NO_SPACE
        promotion.staged = Held(*places[0])
        promotion.started = index.clock()
        index.extend(entry, promotion.staged)
        return promotion.staged.described(size)

    def promotion_done(self, client: bytes, key: str, tenant: str = DEFAULT_TENANT) -> Code:
        """It was written there."""
        found = self._promoted(client, key, tenant)
        if isinstance(found, Code):
            return found
        entry, promotion = found
        staged = promotion.staged
        if staged is None:
            return Code.NOT_READY
        self._end_promotion(entry)
        stats = self._index.stats
        if not staged.segment.alive:
            stats.promotion_failed += 1
            self._index.without(entry, [staged])
            return Code.NOT_READY
        self._index.whole(entry, [staged])
        stats.promotion_completed += 1
        stats.promotion_completed_bytes += entry.size
        return Code.OK

    def promotion_failed(self, client: bytes, key: str, tenant: str = DEFAULT_TENANT) -> Code:
        """It was not, and will not be."""
        found = self._promoted(client, key, tenant)
        if isinstance(found, Code):
            return Code.OK if found is Code.NOT_READY else found
        self._give_up(*found)
        self._index.stats.promotion_failed += 1
        return Code.OK

    # -- others, and time

    def refuses(self, entry: Entry) -> bool:
        """Whether a value must not be replaced now; one that only waits to be written to a disk waits no more."""
        offload = self._offloads.get(entry)
        if offload is not None and not offload.fetched:
            offload.disk.offloads.pop((entry.tenant.name, entry.key), None)
            self._end_offload(entry)
        return entry in self._offloads or entry in self._promotions

    def cancel(self, entry: Entry) -> None:
        """A value goes: what a client is doing with it counts for nothing."""
        name = (entry.tenant.name, entry.key)
        self._hits.pop(entry, None)
        offload = self._offloads.get(entry)
        if offload is not None:
            offload.disk.offloads.pop(name, None)
            self._end_offload(entry)
            if offload.fetched and len(self._cancelled) < MAX_CANCELLED:
                self._cancelled[_Name(offload.client, *name)] = self._index.clock() + self._index.settings.put_release
        if entry in self._promotions:
            self._end_promotion(entry)

    def tick(self, now: float) -> None:
        """Give up what clients did not end."""
        limit = now - self._index.settings.put_release
        for entry, offload in list(self._offloads.items()):
            if offload.started > limit:
                break
            self.cancel(entry)
        for entry, promotion in list(self._promotions.items()):
            if promotion.started <= limit:
                self._give_up(entry, promotion)
                self._index.stats.promotion_expired += 1
        for name, until in list(self._cancelled.items()):
            if until > now:
                break
            del self._cancelled[name]

    def due(self) -> float | None:
        """When to look again."""
        if self._offloads or self._promotions or self._cancelled:
            return self._index.clock() + self._index.settings.put_release / 10
        return None

    # -- how

    def _disk(self, client: bytes) -> Disk | None:
        owner = self._index.clients.get(client)
        return owner.disk if owner is not None else None

    def _entry(self, tenant: str, key: str) -> Entry | None:
        space = self._index.tenants.named(tenant)
        return space.keys.get(key) if space else None

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

    def _promote(self, entry: Entry) -> None:
        source = next((each for each in entry.disks if each.readable), None)
        if source is None or entry.memory:
            return
        name = (entry.tenant.name, entry.key)
        source.disk.promotions[name] = OffloadItem(*name, entry.size)
        self._promotions[entry] = _Promotion(source.client.id, source.disk, self._index.clock())
        self._index.stats.promotion_admitted += 1
        self._index.stats.promotion_in_flight = len(self._promotions)

    def _promoted(self, client: bytes, key: str, tenant: str) -> tuple[Entry, _Promotion] | Code:
        entry = self._entry(tenant, key)
        if entry is None:
            return Code.NOT_FOUND
        promotion = self._promotions.get(entry)
        if promotion is None:
            return Code.NOT_READY
        return (entry, promotion) if promotion.client == client else Code.BAD_PARAMS

    def _end_promotion(self, entry: Entry) -> None:
        promotion = self._promotions.pop(entry)
        promotion.disk.promotions.pop((entry.tenant.name, entry.key), None)
        self._hits.pop(entry, None)
        self._index.stats.promotion_in_flight = len(self._promotions)

    def _give_up(self, entry: Entry, promotion: _Promotion) -> None:
        self._end_promotion(entry)
        if promotion.staged is not None:
            self._index.without(entry, [promotion.staged])

    def _forget_of(self, client: bytes) -> None:
        """A disk went: nothing is asked of it any more."""
        for entry, offload in list(self._offloads.items()):
            if offload.client == client:
                self._end_offload(entry)
        for entry, promotion in list(self._promotions.items()):
            if promotion.client == client:
                self._give_up(entry, promotion)


def _left_alone(entry: Entry) -> bool:
    """Whether a value was whole, and all who had it are silent: then a client that has it on its disk is believed."""
    return all(replica.ready and not replica.readable for replica in entry.replicas)
