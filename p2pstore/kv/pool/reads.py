"""Asking what is there. Each answer that finds a value keeps it for a while, as upstream's does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

from engine.rpc.codes import Code
from engine.rpc.messages import DEFAULT_TENANT, Lone, Replica, Replicas
from p2pstore.kv.pool.entries import COMPLETE, Entry, made
from p2pstore.kv.pool.index import Index
from p2pstore.kv.pool.patterns import bounded
from p2pstore.kv.pool.walks import STEP_ENTRIES, STEP_S, Steps, entries_of

NOT_FOUND = Code.NOT_FOUND
"""To look a member of an enumeration up takes as long as to look a key up."""

MATCH_S = 20.0
"""For the keys that a pattern is looked for in; those who call wait for 30 s."""

MAX_FOUND_BYTES = 128 << 20
"""Of an answer to a pattern: some 600,000 values."""

REPLICA_BYTES = 100
"""What a replica takes in it, more or less."""


class Reads:
    """The calls that change nothing but leases."""

    def __init__(self, index: Index, promote: Callable[[list[Entry]], None] | None = None) -> None:
        """``promote`` is told of values that were just read from a disk."""
        self._index = index
        self._promote = promote
        self._by_tenant = index.settings.tenants
        self._lease_s = index.settings.lease_ms / 1000
        self._lease_ms = index.settings.lease_ms

    def exists(self, key: str, tenant: str = DEFAULT_TENANT) -> bool:
        """The same as ``exist`` of one key. Here, too, nothing is called but in the odd case."""
        index = self._index
        stats = index.stats
        stats.exist_keys += 1
        space = index.tenants.get(tenant if self._by_tenant else DEFAULT_TENANT)
        entry = space.keys.get(key) if space else None
        if entry is None:
            return False
        place = entry.place
        if not ((place.ready and place.segment.alive) or (place.many and entry.readable)):
            return False
        until = index.clock() + self._lease_s
        if entry.more is None:
            if entry.until < until:  # noqa: PLR1730 - max() is a call
                entry.until = until
        else:
            lease(entry, until)
        stats.exist_found += 1
        return True

    def exist(self, keys: Sequence[str], tenant: str = DEFAULT_TENANT) -> list[bool]:
        """For each key whether its value can be read."""
        index = self._index
        index.stats.exist_keys += len(keys)
        space = index.tenants.named(tenant)
        if space is None:
            return [False] * len(keys)
        get = space.keys.get
        until = index.clock() + self._lease_s
        found = []
        for key in keys:  # some 0.25 us a key, so nothing is called but in the odd case
            entry = get(key)
            if entry is None:
                found.append(False)
                continue
            place = entry.place
            if (place.ready and place.segment.alive) or (place.many and entry.readable):
                if entry.more is None:
                    if entry.until < until:  # noqa: PLR1730 - max() is a call
                        entry.until = until
                else:
                    lease(entry, until)
                found.append(True)
            else:
                found.append(False)
        index.stats.exist_found += found.count(True)
        return found

    def one(self, key: str, tenant: str = DEFAULT_TENANT) -> Lone | Replicas | Code:
        """The same as ``replicas`` of one key."""
        index = self._index
        space = index.tenants.get(tenant if self._by_tenant else DEFAULT_TENANT)
        entry = space.keys.get(key) if space else None
        if entry is not None:
            place, size = entry.place, entry.size
            segment = place.segment
            if place.ready and segment.alive:  # never of several
                stats = index.stats
                stats.total_get_nums += 1
                stats.valid_get_nums += 1
                stats.mem_cache_hit_nums += 1
                stats.mem_cache_hit_bytes += size
                until = index.clock() + self._lease_s
                if entry.more is None:
                    if entry.until < until:  # noqa: PLR1730 - max() is a call
                        entry.until = until
                else:
                    lease(entry, until)
                offset = place.offset  # type: ignore[union-attr]
                lone = (segment.first_id | offset, size, segment.base + offset, segment.owner, COMPLETE,
                        self._lease_ms, entry.checksum)  # fmt: skip
                return made(Lone, lone)
        return self.replicas((key,), tenant)[0]

    def replicas(self, keys: Sequence[str], tenant: str = DEFAULT_TENANT) -> list[Lone | Replicas | Code]:
        """For each key where its value can be read."""
        index = self._index
        stats = index.stats
        stats.total_get_nums += len(keys)
        space = index.tenants.named(tenant)
        if space is None:
            return [Code.NOT_FOUND] * len(keys)
        until = index.clock() + self._lease_s
        found: list[Lone | Replicas | Code] = []
        from_disk: list[Entry] = []
        number = total = disk_bytes = 0
        get, lease_ms, add = space.keys.get, self._lease_ms, found.append
        for key in keys:  # some 0.5 us a key, as in exist
            entry = get(key)
            if entry is None:
                add(NOT_FOUND)
                continue
            place, size = entry.place, entry.size
            segment = place.segment
            if place.ready and segment.alive:  # never of several
                offset = place.offset  # type: ignore[union-attr]
                lone = (segment.first_id | offset, size, segment.base + offset, segment.owner, COMPLETE, lease_ms,
                        entry.checksum)  # fmt: skip
                add(made(Lone, lone))
            else:
                replicas = entry.described()
                if not replicas:
                    add(Code.NOT_READY if entry in index.writing else Code.NOT_FOUND)
                    continue
                if not any(held.readable for held in entry.memory):
                    disk_bytes += size
                    from_disk.append(entry)
                add(made(Replicas, (replicas, lease_ms, entry.checksum)))
            if entry.more is None:
                if entry.until < until:  # noqa: PLR1730 - max() is a call
                    entry.until = until
            else:
                lease(entry, until)
            number += 1
            total += size
        stats.valid_get_nums += number
        stats.mem_cache_hit_nums += number - len(from_disk)
        stats.mem_cache_hit_bytes += total - disk_bytes
        stats.file_cache_hit_nums += len(from_disk)
        stats.file_cache_hit_bytes += disk_bytes
        if from_disk and self._promote is not None:
            self._promote(from_disk)
        return found

    def by_regex(self, pattern: str, tenant: str = DEFAULT_TENANT) -> Steps[dict[str, list[Replica]] | Code]:
        """The values whose key a pattern is found in."""
        matched = yield from matching(self._index, pattern, tenant)
        if isinstance(matched, Code):
            return matched
        found: dict[str, list[Replica]] = {}
        takes = 0
        for number, entry in enumerate(matched, 1):
            replicas = entry.described()
            if replicas:
                found[entry.key] = replicas
                takes += len(entry.key) + REPLICA_BYTES * len(replicas)
                if takes > MAX_FOUND_BYTES:
                    return Code.BAD_PARAMS
                lease(entry, self._index.clock() + self._lease_s)
            if not number % STEP_ENTRIES:
                yield
        return found

    def keys(self, tenant: str | None) -> list[str]:
        """The keys of one tenant, or of all, whose values can be read."""
        index = self._index
        if tenant is None:
            return [entry.key for entry in index.entries() if entry.readable]
        space = index.tenants.named(tenant)
        return [key for key, entry in space.keys.items() if entry.readable] if space else []

    def peek(self, key: str, tenant: str = DEFAULT_TENANT) -> Replicas | Code:
        """Where a value can be read, and for how long its lease still is, without a new one: for people who look."""
        entry = self._index.tenants.entry(tenant, key)
        if entry is None:
            return Code.NOT_FOUND
        replicas = entry.described()
        if not replicas:
            return Code.NOT_READY if entry in self._index.writing else Code.NOT_FOUND
        left = max(0.0, entry.leased_until - self._index.clock())
        return Replicas(replicas, round(left * 1000), entry.checksum)


def lease(entry: Entry, until: float) -> None:
    """Keep a value, and its group, so long."""
    if entry.until < until:  # noqa: PLR1730 - max() is a call
        entry.until = until
    if entry.more is not None and entry.more.group is not None:
        group = entry.more.group
        group.until = max(group.until, until)


def matching(index: Index, text: str, tenant: str) -> Steps[list[Entry] | Code]:
    """The values of a tenant whose key a pattern is found in; ``BAD_PARAMS`` where that could take too long."""
    pattern, space = bounded(text), index.tenants.named(tenant)
    if pattern is None:
        return Code.BAD_PARAMS
    if space is None:
        return []
    found: list[Entry] = []
    clock, search, longest = index.clock, pattern.search, pattern.longest
    began = clock()
    last = began + MATCH_S
    with closing(entries_of(index, space)) as walk:
        for some in walk:
            for entry in some:
                if len(entry.key) > longest:
                    return Code.BAD_PARAMS
                if search(entry.key):
                    found.append(entry)
                if clock() - began > STEP_S:
                    yield
                    began = clock()
            if began > last:
                return Code.BAD_PARAMS
            yield
            began = clock()
    return found
