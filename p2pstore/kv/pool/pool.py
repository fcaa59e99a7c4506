"""The state of a master of the pooled store: no socket, no thread, no clock of its own.

Each call of a client is a method that answers with what was asked for or with a ``Code``; nothing that a caller does
raises. What has to happen with time happens in ``tick``, a little at a time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from engine.rpc.codes import Code
from engine.rpc.messages import (
    DEFAULT_TENANT,
    Lone,
    OffloadItem,
    Replica,
    Replicas,
    ReplicateConfig,
    StorageConfig,
    TaskType,
)
from p2pstore.kv.pool.disks import Disks
from p2pstore.kv.pool.drain import Drains
from p2pstore.kv.pool.entries import Entry
from p2pstore.kv.pool.eviction import Eviction
from p2pstore.kv.pool.index import Index
from p2pstore.kv.pool.members import Members
from p2pstore.kv.pool.promotions import Promotions
from p2pstore.kv.pool.reads import Reads
from p2pstore.kv.pool.removal import Removal
from p2pstore.kv.pool.restore import Restoring, Snapshot
from p2pstore.kv.pool.segments import SegmentInfo
from p2pstore.kv.pool.settings import PoolSettings
from p2pstore.kv.pool.stats import Stats
from p2pstore.kv.pool.story import Story
from p2pstore.kv.pool.tasks import Tasks
from p2pstore.kv.pool.walks import Steps, whole
from p2pstore.kv.pool.write_ends import WriteEnds
from p2pstore.kv.pool.writes import Writes

RELEASES = 1000
"""Places and pins that one tick frees at most."""


class Pool:
    """All of it, by the calls that clients make."""

    def __init__(
        self, settings: PoolSettings, clock: Callable[[], float], *, chance: random.Random | None = None
    ) -> None:
        """``clock`` gives seconds that never go back; ``chance`` chooses among segments."""
        self.settings = settings
        self._index = Index(settings, clock, chance or random.Random())  # noqa: S311 - no secret depends on it
        self._members = Members(self._index)
        self._promotions = Promotions(self._index)
        self._disks = Disks(self._index, self._promotions)
        self._eviction = Eviction(self._index, self._disks)
        self._reads = Reads(self._index, self._promotions.hit if settings.promotion_on_hit else None)
        self._tasks = Tasks(self._index)
        self._index.cancel_tasks = self._cancel
        self._ends = WriteEnds(self._index, self._disks)
        self._writes = Writes(self._index, self._eviction, self._tasks, self._disks, self._ends)
        self._drains = Drains(self._index, self._tasks)
        self._removal = Removal(self._index, self._tasks)
        # Calls that a part answers as it is asked are that part's own methods: some tens of thousands of them come in a
        # second, and a step in between would take its time. Of reads and puts they answer with a ``Lone`` for what lies
        # in one place in memory, which the codec writes quickly.
        self.exists, self.exist = self._reads.exists, self._reads.exist
        self.found_one, self.found = self._reads.one, self._reads.replicas
        self.replicas_by_regex, self.peek = self._reads.by_regex, self._reads.peek
        self.make_room = self._eviction.make_room
        self.put_begin_one, self.put_begin = self._writes.start_one, self._writes.start
        self.put_end_one = self._ends.end_one
        self.put_end = self.upsert_end = self._ends.end
        self.put_revoke = self.upsert_revoke = self._ends.revoke
        self.mount = self._members.mount
        self.remount = self._members.remount
        self.unmount = self._members.unmount
        self.ping = self._members.ping
        self.lost = self._members.lost
        self.create_copy = self._tasks.copy
        self.create_move = self._tasks.move
        self.fetch_tasks = self._tasks.fetch
        self.query_task = self._tasks.query
        self.task_done = self._tasks.done
        self.copy_start = self._tasks.copy_start
        self.move_start = self._tasks.move_start
        self.drain = self._drains.create
        self.drain_job = self._drains.query
        self.cancel_drain = self._drains.cancel
        self.unmount_disk = self._disks.unmount
        self.report_disk = self._disks.report
        self.poll_remove_all = self._disks.poll_remove_all
        self.offloaded = self._disks.offloaded
        self.evict_disk = self._disks.evict
        self.promotion_heartbeat = self._promotions.asked
        self.promotion_start = self._promotions.start
        self.promotion_done = self._promotions.done
        self.promotion_failed = self._promotions.failed
        self.set_quota = self._index.set_quota
        self.tenant_use, self.tenant_uses = self._index.tenants.use, self._index.tenants.uses
        self.take_log = self._index.take_log

    # -- clients and segments

    def suspect(self, endpoint: str, *, refused: bool = False) -> Code:
        """Somebody could not read from this endpoint, or write to it; ``refused`` where nothing listens there."""
        self._members.suspect(endpoint, refused=refused)
        return Code.OK

    def segments(self) -> list[SegmentInfo]:
        """All segments, with what is used of them."""
        now = self._index.clock()
        heard = {name: client.heard for name, client in self._index.clients.items()}
        return [each.described()._replace(silent=now - heard.get(each.client, now)) for each in self._index.segments]

    def segment(self, name: str) -> SegmentInfo | Code:
        """The one of that name; the first of several."""
        return next((each for each in self.segments() if each.name == name), Code.NO_SEGMENT)

    def query_ip(self, client: bytes) -> list[str] | Code:
        """The hosts of a client's segments."""
        known = self._index.clients.get(client)
        if known is None or not known.segments:
            return Code.CLIENT_UNKNOWN
        hosts = (each.endpoint.rpartition(":")[0] or each.endpoint for each in known.segments.values() if each.endpoint)
        return list(dict.fromkeys(hosts))

    def storage_config(self) -> StorageConfig:
        """No files that every client can open."""
        return StorageConfig()

    # -- reads

    def replicas(self, keys: Sequence[str], tenant: str = DEFAULT_TENANT) -> list[Replicas | Code]:
        """For each key where its value can be read. Found values are leased."""
        found = self.found(keys, tenant)
        return [
            Replicas(each.replicas, each.lease_ms, each.checksum) if isinstance(each, Lone) else each for each in found
        ]

    def busy(self, key: str, tenant: str = DEFAULT_TENANT) -> bool:
        """Whether a value is being copied or moved, so that it is neither removed nor replaced."""
        entry = self._index.tenants.entry(tenant, key)
        return entry is not None and self._tasks.busy(entry)

    def keys(self, tenant: str | None = None) -> list[str]:
        """The keys of a tenant, or of all, that can be read."""
        return self._reads.keys(tenant)

    # -- writes

    def put_start(
        self, client: bytes, keys: Sequence[str], sizes: Sequence[int], config: ReplicateConfig,
        tenant: str = DEFAULT_TENANT,
    ) -> list[list[Replica] | Code]:  # fmt: skip
        """Where each value is to be written."""
        begun = self._writes.start(client, keys, sizes, config, tenant)
        return [each.replicas if isinstance(each, Lone) else each for each in begun]

    def upsert_start(
        self, client: bytes, keys: Sequence[str], sizes: Sequence[int], config: ReplicateConfig,
        tenant: str = DEFAULT_TENANT,
    ) -> list[list[Replica] | Code]:  # fmt: skip
        """Where each value is to be written, in place of what there is."""
        begun = self._writes.start(client, keys, sizes, config, tenant, upsert=True)
        return [each.replicas if isinstance(each, Lone) else each for each in begun]

    # -- removal

    def remove(self, keys: Sequence[str], force: bool = False, tenant: str = DEFAULT_TENANT) -> list[Code]:  # noqa: FBT001 - as the call has it
        """Remove values by key."""
        return self._removal.remove(keys, tenant, force=force)

    def remove_by_regex(self, pattern: str, force: bool = False, tenant: str = DEFAULT_TENANT) -> Steps[int | Code]:  # noqa: FBT001
        """Remove values by pattern; tells how many."""
        return self._removal.by_regex(pattern, tenant, force=force)

    def remove_all(self, force: bool = False, tenant: str | None = None) -> Steps[int]:  # noqa: FBT001
        """Remove all values of a tenant, or of all; tells how many."""
        return self._removal.all(tenant, force=force)

    def replica_clear(
        self, keys: Sequence[str], client: bytes, segment: str = "", tenant: str = DEFAULT_TENANT
    ) -> list[str]:
        """Remove a client's own values, or their replicas in one segment; tells which."""
        return self._removal.clear(keys, client, segment, tenant)

    # -- copies and moves

    def copy_end(self, client: bytes, key: str, tenant: str = DEFAULT_TENANT) -> Code:
        """It has."""
        return self._tasks.end(client, key, tenant, TaskType.COPY)

    def copy_revoke(self, client: bytes, key: str, tenant: str = DEFAULT_TENANT) -> Code:
        """It has not."""
        return self._tasks.revoke(client, key, tenant, TaskType.COPY)

    def move_end(self, client: bytes, key: str, tenant: str = DEFAULT_TENANT) -> Code:
        """It has."""
        return self._tasks.end(client, key, tenant, TaskType.MOVE)

    def move_revoke(self, client: bytes, key: str, tenant: str = DEFAULT_TENANT) -> Code:
        """It has not."""
        return self._tasks.revoke(client, key, tenant, TaskType.MOVE)

    # -- disks of clients

    def mount_disk(self, client: bytes, offloading: bool) -> Code:  # noqa: FBT001
        """A client offers its disk."""
        return self._disks.mount(client, offloading=offloading)

    def offload_heartbeat(self, client: bytes, offloading: bool) -> list[OffloadItem] | Code:  # noqa: FBT001
        """What it is to write to its disk."""
        return self._disks.heartbeat(client, offloading=offloading)

    def _cancel(self, entry: Entry) -> None:
        self._tasks.cancel(entry)
        self._disks.cancel(entry)

    # -- time

    def tick(self) -> bool:
        """Do what is due, a few milliseconds of it at most; tells whether there is more to do at once."""
        index = self._index
        now = index.clock()
        index.order.unpin(now, RELEASES)
        self._ends.tick(now, RELEASES)
        self._tasks.tick(now)
        self._disks.tick(now)
        index.release_discarded(now, RELEASES)
        more = self._members.tick(now)
        more = self._eviction.tick(now) or more
        more = self._drains.tick(now) or more
        return index.order.compact() or more

    def due(self) -> float | None:
        """When ``tick`` has something to do next, by the clock; None if nothing will happen by itself."""
        index = self._index
        times = [
            self._members.due(),
            self._ends.due(),
            self._tasks.due(),
            self._disks.due(),
            self._drains.due(),
            index.order.next_unpin,
        ]
        if index.discarded:
            times.append(index.discarded[0].until)
        segments = index.segments
        if segments.used > self.settings.high_watermark * segments.capacity:
            times.append(index.clock())
        known = [time for time in times if time is not None]
        return min(known) if known else None

    @property
    def settled(self) -> int:
        """Grows with each write that ended, however it did: who waits for a key may try again."""
        return self._index.settled

    # -- for those who look

    @property
    def stats(self) -> Stats:
        """What was counted, and what there is now."""
        stats = self._index.stats
        stats.allocated_bytes = self._index.segments.used
        stats.total_capacity_bytes = self._index.segments.capacity
        return stats

    @property
    def story(self) -> Story:
        """What happened to a key last."""
        return self._index.story

    def tenants(self) -> list[str]:
        """The tenants that have keys."""
        return [name for name, space in self._index.tenants.items() if space.keys]

    def names(self, tenant: str) -> list[str]:
        """All keys of a tenant, whether they can be read or not: it looks at none of them, so it takes no time."""
        space = self._index.tenants.named(tenant)
        return list(space.keys) if space else []

    def tenants_of(self, key: str) -> list[str]:
        """The tenants in which there is such a key now."""
        return [name for name, space in self._index.tenants.items() if key in space.keys]

    # -- persistence

    def snapshot(self) -> Snapshot:
        """The records that make this pool again, in slices."""
        return Snapshot(self._index)

    @classmethod
    def restore(
        cls, settings: PoolSettings, clock: Callable[[], float], records: Iterable[bytes],
        *, chance: random.Random | None = None,
    ) -> Pool:  # fmt: skip
        """A pool from the records of a snapshot, and those that were put down since. Raises ``BadRecord``."""
        restoring = Restoring()
        for record in records:
            restoring.apply(record)
        pool = cls(settings, clock, chance=chance)
        whole(pool.restored(restoring))
        return pool

    def restored(self, restoring: Restoring) -> Steps[None]:
        """Have what another pool had, in place of nothing."""
        return restoring.into(self._index)
