"""Values that come back from the disks of clients to memory: which, and how far each is.

The master asks in the answers to heartbeats, and the client says later what became of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.rpc.codes import Code
from engine.rpc.messages import DEFAULT_TENANT, OffloadItem, Replica
from p2pstore.kv.pool.clients import Disk
from p2pstore.kv.pool.entries import Entry, Held
from p2pstore.kv.pool.index import Index
from p2pstore.kv.pool.settings import PROMOTIONS_A_HEARTBEAT
from p2pstore.kv.pool.tenants import room_in

MAX_HITS = 100_000
"""Values on disks whose reads are counted; then counting begins anew."""


class _Promotion:
    """A value that a client is to bring from its disk to memory; ``staged`` once it has begun."""

    __slots__ = ("client", "disk", "staged", "started")

    def __init__(self, client: bytes, disk: Disk, started: float) -> None:
        self.client = client
        self.disk = disk
        self.staged: Held | None = None
        self.started = started


class Promotions:
    """Those that are asked for, and how often values on disks were read."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._promotions: dict[Entry, _Promotion] = {}
        self._hits: dict[Entry, int] = {}

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

    def asked(self, client: bytes) -> list[OffloadItem] | Code:
        """What a client is to bring back now."""
        owner = self._index.clients.get(client)
        if owner is None or owner.disk is None:
            return Code.NO_SEGMENT
        waiting = owner.disk.promotions
        return [waiting.pop(name) for name in list(waiting)[:PROMOTIONS_A_HEARTBEAT]]

    def start(
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

    def done(self, client: bytes, key: str, tenant: str = DEFAULT_TENANT) -> Code:
        """It was written there."""
        found = self._promoted(client, key, tenant)
        if isinstance(found, Code):
            return found
        entry, promotion = found
        staged = promotion.staged
        if staged is None:
            return Code.NOT_READY
        self._end(entry)
        stats = self._index.stats
        if not staged.segment.alive:
            stats.promotion_failed += 1
            self._index.without(entry, [staged])
            return Code.NOT_READY
        self._index.whole(entry, [staged])
        stats.promotion_completed += 1
        stats.promotion_completed_bytes += entry.size
        return Code.OK

    def failed(self, client: bytes, key: str, tenant: str = DEFAULT_TENANT) -> Code:
        """It was not, and will not be."""
        found = self._promoted(client, key, tenant)
        if isinstance(found, Code):
            return Code.OK if found is Code.NOT_READY else found
        self._give_up(*found)
        self._index.stats.promotion_failed += 1
        return Code.OK

    # -- others, and time

    def __len__(self) -> int:
        return len(self._promotions)

    def has(self, entry: Entry) -> bool:
        """Whether a value is on its way back."""
        return entry in self._promotions

    def cancel(self, entry: Entry) -> None:
        """A value goes: what a client is doing with it counts for nothing."""
        self._hits.pop(entry, None)
        if entry in self._promotions:
            self._end(entry)

    def give_up_late(self, limit: float) -> None:
        """Give up what was begun by then, and that its client did not end."""
        for entry, promotion in list(self._promotions.items()):
            if promotion.started <= limit:
                self._give_up(entry, promotion)
                self._index.stats.promotion_expired += 1

    def forget_of(self, client: bytes) -> None:
        """The disk of a client went: nothing is asked of it any more."""
        for entry, promotion in list(self._promotions.items()):
            if promotion.client == client:
                self._give_up(entry, promotion)

    # -- how

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
        entry = self._index.tenants.entry(tenant, key)
        if entry is None:
            return Code.NOT_FOUND
        promotion = self._promotions.get(entry)
        if promotion is None:
            return Code.NOT_READY
        return (entry, promotion) if promotion.client == client else Code.BAD_PARAMS

    def _end(self, entry: Entry) -> None:
        promotion = self._promotions.pop(entry)
        promotion.disk.promotions.pop((entry.tenant.name, entry.key), None)
        self._hits.pop(entry, None)
        self._index.stats.promotion_in_flight = len(self._promotions)

    def _give_up(self, entry: Entry, promotion: _Promotion) -> None:
        self._end(entry)
        if promotion.staged is not None:
            self._index.without(entry, [promotion.staged])
