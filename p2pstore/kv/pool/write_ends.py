"""Ends of writes: when a value can be read, and what becomes of a write that does not end."""

from __future__ import annotations

from collections.abc import Sequence

from engine.rpc.codes import Code
from engine.rpc.messages import DEFAULT_TENANT, Kind, ObjectMeta
from p2pstore.kv.pool.disks import Disks
from p2pstore.kv.pool.entries import Entry, Tenant
from p2pstore.kv.pool.index import Index

OK = Code.OK
"""To look a member of an enumeration up takes as long as half a step of a put."""

MEMORY_KINDS = frozenset({Kind.ALL, Kind.MEMORY})


class WriteEnds:
    """The calls that end the putting of values, and the time that does."""

    def __init__(self, index: Index, disks: Disks) -> None:
        self._index = index
        self._disks = disks

    def end(
        self, client: bytes, metas: Sequence[ObjectMeta], kind: int = Kind.ALL, tenant: str = DEFAULT_TENANT
    ) -> list[Code]:
        """The values were written: they can be read from now on."""
        index = self._index
        space = index.tenants.named(tenant)
        now = index.clock()
        index.lost_writers.discard(client)
        if space is None or kind not in MEMORY_KINDS or index.settings.offload:
            return [self._end(client, meta, kind, space, now) for meta in metas]
        get, writing = space.keys.get, index.writing
        results: list[Code] = []
        ended: list[Entry] = []
        for meta in metas:  # as nearly all are; nothing is called but in the odd case
            key, checksum = meta
            entry = get(key)
            if entry is None or entry.writer != client or entry.more is not None or entry not in writing:
                results.append(self._end(client, meta, kind, space, now))
                continue
            place = entry.place
            if not place.segment.alive:  # or several
                results.append(self._end(client, meta, kind, space, now))
                continue
            place.ready = True
            del writing[entry]
            entry.checksum = checksum
            entry.until = now
            ended.append(entry)
            results.append(OK)
        if ended:
            index.complete_all(ended, now)
        return results

    def end_one(self, client: bytes, meta: ObjectMeta, kind: int = Kind.ALL, tenant: str = DEFAULT_TENANT) -> Code:
        """The same of one value."""
        index = self._index
        index.lost_writers.discard(client)
        return self._end(client, meta, kind, index.tenants.named(tenant), index.clock())

    def revoke(
        self, client: bytes, keys: Sequence[str], kind: int = Kind.ALL, tenant: str = DEFAULT_TENANT
    ) -> list[Code]:
        """The values were not written, and will not be."""
        space = self._index.tenants.named(tenant)
        return [self._revoke(client, key, kind, space) for key in keys]

    def tick(self, now: float, limit: int) -> None:
        """Give up on writes whose memory is due for release, up to ``limit``: nobody asked for their keys meanwhile."""
        index = self._index
        if not index.writing:
            index.lost_writers.clear()
        while index.writing and limit > 0:
            entry, started = next(iter(index.writing.items()))
            if started + index.settings.put_release > now:
                return
            limit -= 1
            self.discard(entry, now)

    def due(self) -> float | None:
        """When the next write is given up."""
        started = next(iter(self._index.writing.values()), None)
        return None if started is None else started + self._index.settings.put_release

    def discard(self, entry: Entry, now: float) -> None:
        """Give a write up. Its memory stays reserved for as long as its writer may still write there."""
        index = self._index
        keep = index.writing[entry] + index.settings.put_release
        index.stats.put_start_discard_cnt += 1
        index.tell(entry, "discarded", "its writer did not end the put", entry.writer)
        if keep > now:
            index.stats.put_start_discarded_staging_size += entry.size * len(entry.memory)
        index.drop(entry, keep_until=keep if keep > now else 0.0)

    def _end(self, client: bytes, meta: ObjectMeta, kind: int, space: Tenant | None, now: float) -> Code:
        index = self._index
        key, checksum = meta
        entry = space.keys.get(key) if space else None
        if entry is None:
            return Code.NOT_FOUND
        if entry.writer != client:
            return Code.ILLEGAL_CLIENT
        if kind not in MEMORY_KINDS:
            return Code.BAD_WRITE
        if entry not in index.writing:
            return OK if entry.readable else Code.BAD_WRITE  # the same end again
        place = entry.place
        if place.segment.alive:  # as nearly always: one place
            place.ready = True
        else:
            memory = entry.memory
            if not any(held.segment.alive for held in memory):
                index.tell(entry, "lost", "its memory went while it was written", client)
                index.drop(entry)
                return Code.REPLICA_GONE
            for held in memory:
                held.ready = True
        entry.checksum = checksum
        index.complete(entry, now)
        if index.settings.offload and not index.settings.offload_on_evict:
            self._disks.offer(entry)
        return OK

    def _revoke(self, client: bytes, key: str, kind: int, space: Tenant | None) -> Code:
        index = self._index
        entry = space.keys.get(key) if space else None
        if entry is None:
            return Code.NOT_FOUND
        if entry.writer != client:
            return Code.ILLEGAL_CLIENT
        if entry not in index.writing or kind not in MEMORY_KINDS:
            return Code.BAD_WRITE
        index.tell(entry, "revoked", "its writer gave it up", client)
        index.drop(entry)
        return OK
