"""Removing values because somebody says so. Who reads them, or writes them, is not disturbed unless it is forced."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing

from engine.rpc.codes import Code
from p2pstore.kv.pool.clients import Client
from p2pstore.kv.pool.entries import GONE, Entry, Held, OnDisk
from p2pstore.kv.pool.index import Index, keep_for_readers
from p2pstore.kv.pool.reads import matching
from p2pstore.kv.pool.tasks import Tasks
from p2pstore.kv.pool.walks import STEP_ENTRIES, Steps, entries_of


class Removal:
    """The calls that remove."""

    def __init__(self, index: Index, tasks: Tasks) -> None:
        self._index = index
        self._tasks = tasks

    def remove(self, keys: Sequence[str], tenant: str, *, force: bool) -> list[Code]:
        """For each key what became of it. ``force`` ends leases, and nothing else."""
        space = self._index.tenants.named(tenant)
        now = self._index.clock()
        found = [space.keys.get(key) if space else None for key in keys]
        return [Code.NOT_FOUND if entry is None else self._remove(entry, now, force=force) for entry in found]

    def by_regex(self, pattern: str, tenant: str, *, force: bool) -> Steps[int | Code]:
        """Remove all whose key a pattern is found in; tells how many."""
        matched = yield from matching(self._index, pattern, tenant)
        if isinstance(matched, Code):
            return matched
        removed = 0
        for first in range(0, len(matched), STEP_ENTRIES):
            removed += self._each(matched[first : first + STEP_ENTRIES], force=force)
            yield
        return removed

    def all(self, tenant: str | None, *, force: bool) -> Steps[int]:
        """Remove all of a tenant's, or of all; tells how many. The disks that have some are told to clear them."""
        index = self._index
        space = None if tenant is None else index.tenants.named(tenant)
        removed = 0
        told: set[Client] = set()
        if tenant is None or space is not None:
            with closing(entries_of(index, space)) as walk:
                for entries in walk:
                    told.update(disk.client for entry in entries for disk in entry.disks)
                    removed += self._each(entries, force=force)
                    yield
        for client in index.clients.values() if tenant is None else told:
            if client.disk is not None:
                client.disk.remove_all = True
        return removed

    def clear(self, keys: Sequence[str], client: bytes, segment: str, tenant: str) -> list[str]:
        """Remove a client's own values, or their replicas in one segment; tells which went."""
        space = self._index.tenants.named(tenant)
        if space is None:
            return []
        now = self._index.clock()
        cleared = []
        for key in keys:
            entry = space.keys.get(key)
            if entry is None or entry.writer != client or entry in self._index.writing or entry.leased_until > now:
                continue
            leaving = [each for each in entry.replicas if not segment or _lies_in(each, segment)]
            if leaving and not any(each.holds for each in leaving) and not self._tasks.busy(entry):
                self._index.without(entry, leaving)
                cleared.append(key)
        return cleared

    def _each(self, entries: Iterable[Entry], *, force: bool) -> int:
        now = self._index.clock()
        there = (entry for entry in entries if entry.place is not GONE)
        return sum(self._remove(entry, now, force=force) is Code.OK for entry in there)

    def _remove(self, entry: Entry, now: float, *, force: bool) -> Code:
        index = self._index
        if entry in index.writing:
            return Code.NOT_READY
        readable = entry.readable
        if readable and not force and entry.leased_until > now:
            return Code.LEASED
        if self._tasks.busy(entry):
            return Code.HAS_TASK
        index.tell(entry, "removed", "by force" if force else "")
        index.drop(entry, keep_until=0.0 if force else keep_for_readers(index, entry))
        return Code.OK if readable else Code.NOT_FOUND  # it was with an absent client, and is not to come back with it


def _lies_in(replica: Held | OnDisk, segment: str) -> bool:
    if isinstance(replica, Held):
        return replica.ready and replica.segment.name == segment
    return replica.endpoint == segment
