"""The index: which values there are, and what changes when one comes or goes.

All parts of the pool work on one of these. It decides nothing: who may do what is theirs.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from engine.rpc.codes import Code
from p2pstore.kv.pool import records
from p2pstore.kv.pool.clients import Client
from p2pstore.kv.pool.entries import GONE, Entry, Group, Held, More, OnDisk, placed
from p2pstore.kv.pool.order import Order
from p2pstore.kv.pool.segments import Mounted, Segments
from p2pstore.kv.pool.settings import PoolSettings
from p2pstore.kv.pool.shared import Shared
from p2pstore.kv.pool.stats import Stats
from p2pstore.kv.pool.story import Event, Story
from p2pstore.kv.pool.tenants import Tenants

ENTRY_BYTES = 330
"""What a value takes in the index beside the characters of its key."""


class Discarded(NamedTuple):
    """A place of a write that did not end, or of a value that was replaced; its memory is used again at ``until``."""

    until: float
    segment: Mounted
    offset: int
    size: int


class Index:
    """Tenants, their values, segments and clients, with what they add up to."""

    def __init__(self, settings: PoolSettings, clock: Callable[[], float], chance: random.Random) -> None:
        self.settings = settings
        self.clock = clock
        self.stats = Stats()
        self.story = Story()
        self.segments = Segments(settings.allocation, chance)
        self.clients: dict[bytes, Client] = {}
        self.tenants = Tenants(settings)
        self.writing: dict[Entry, float] = {}
        """Values that are being written, with the time when that began; the oldest first."""
        self.lost_writers: set[bytes] = set()
        """Clients that gave no memory, and whose connections went while they were writing."""
        self.staged: dict[Held, Entry] = {}
        """Replicas that are being copied to, of values that can be read elsewhere."""
        self.order = Order(self.stats)
        self.discarded: deque[Discarded] = deque()
        self.key_bytes = 0
        self.settled = 0
        """Grows with each write that ended, however it did."""
        self.gone: list[Mounted] = []
        """Segments that were unmounted and not yet swept."""
        self.why_gone: dict[int, str] = {}
        """Why, by their number."""
        self.disks_gone = False
        """Whether a client took its disk back, and what was there is not yet swept."""
        self.cancel_tasks: Callable[[Entry], None] = _no_tasks
        """Told of each value that goes, so that no task goes on for it."""
        self._log: list[bytes] | None = [] if settings.log else None
        self._disk_number = 0
        self.shared = Shared()

    def note(self, record: bytes) -> None:
        """Put a change down for the journal."""
        if self._log is not None:
            self._log.append(record)

    def take_log(self) -> list[bytes]:
        """What was put down since the last time."""
        if not self._log:
            return []
        taken, self._log = self._log, []
        return taken

    @property
    def logging(self) -> bool:
        """Whether changes are put down."""
        return self._log is not None

    def tell(self, entry: Entry, what: str, detail: str = "", client: bytes = b"") -> None:
        """Remember what happened to a value."""
        self.story.tell(entry.key, entry.tenant.name, Event(what, self.clock(), client, detail))

    def set_quota(self, name: str, size: int) -> Code:
        """Bound what a tenant takes of the memory, in bytes; 0 ends that."""
        code = self.tenants.may_have(name, size)
        if code is Code.OK:
            self.tenants.set_quota(name, size)
            self.note(records.quota(name, size))
        return code

    def client(self, name: bytes) -> Client:
        """The one with that id, made where it is new."""
        found = self.clients.get(name)
        if found is None:
            found = self.clients[name] = Client(name, self.clock())
            self.stats.active_clients += 1
        return found

    def full(self, key: str) -> bool:
        """Whether there is no room in the index for one more key."""
        limits, count = self.settings, self.stats.key_count
        takes = self.key_bytes + len(key) + count * ENTRY_BYTES
        return count >= limits.max_keys or takes > limits.max_index_bytes

    def has_room(self, keys: int, characters: int) -> bool:
        """Whether there is room in the index for so many more keys, of so many characters together."""
        limits, count = self.settings, self.stats.key_count
        takes = self.key_bytes + characters + (count + keys - 1) * ENTRY_BYTES
        return count + keys <= limits.max_keys and takes <= limits.max_index_bytes

    @property
    def index_bytes(self) -> int:
        """About what the index takes."""
        return self.key_bytes + self.stats.key_count * ENTRY_BYTES

    # -- a value comes

    def begin(self, entry: Entry, started: float) -> None:
        """Have a value that is being written."""
        self.writing[entry] = started
        self._have(entry)
        if self._log is not None:
            for held in entry.memory:
                self._log.append(records.reserved(held.segment.number, held.offset, entry.size))

    def begin_all(self, entries: Sequence[Entry], keys: Sequence[str], characters: int, started: float) -> None:
        """Have new values that are being written, of one tenant and one size, each in one place."""
        self.writing.update(dict.fromkeys(entries, started))
        tenant, size = entries[0].tenant, entries[0].size
        tenant.keys.update(zip(keys, entries, strict=True))
        tenant.used += size * len(entries)
        self.stats.key_count += len(entries)
        self.key_bytes += characters
        if self._log is not None:
            self._log += [records.reserved(held.segment.number, held.offset, size) for held in _places(entries)]

    def have(self, entry: Entry, now: float) -> None:
        """Have a value that was written before this pool was made."""
        self._have(entry)
        self.order.file(entry, now)

    def _have(self, entry: Entry) -> None:
        tenant, key = entry.tenant, entry.key
        tenant.keys[key] = entry
        self.stats.key_count += 1
        self.key_bytes += len(key)
        tenant.used += entry.size * (1 if isinstance(entry.place, Held) else len(entry.memory))

    def complete(self, entry: Entry, now: float) -> None:
        """It was written: have it read from now on, and age."""
        del self.writing[entry]
        self.settled += 1
        entry.until = now
        self.order.file(entry, now)
        self.stats.stored(entry.size)
        if self._log is not None:
            self.changed(entry)

    def complete_all(self, entries: list[Entry], now: float) -> None:
        """The same of values with nothing special about them, each in one place; who wrote them has ended each."""
        self.settled += len(entries)
        self.order.plain.add_all(entries, now)
        sizes = [entry.size for entry in entries]
        if sizes.count(sizes[0]) == len(sizes):  # as nearly always, and in a third of the time
            self.stats.stored(sizes[0], len(sizes))
        else:
            for size, count in Counter(sizes).items():
                self.stats.stored(size, count)
        if self._log is not None:
            clock = self.clock()
            self._log += [records.value(entry, clock) for entry in entries]

    def changed(self, entry: Entry) -> None:
        """Put down how it is now."""
        if self._log is not None:
            self._log.append(records.value(entry, self.clock()))

    def in_group(self, entry: Entry, name: str) -> None:
        """Have it belong to a group of its tenant."""
        groups = entry.tenant.groups
        group = groups.get(name)
        if group is None:
            group = groups[name] = Group(name)
        group.members[entry] = None
        if entry.more is None:
            entry.more = More()
        entry.more.group = group

    # -- a value goes

    def drop(self, entry: Entry, *, keep_until: float = 0.0, hand_over: bool = False) -> None:
        """Have it no more. Its memory is free at once, or at ``keep_until``, until when somebody may use it.

        With ``hand_over`` it is not free, but another value's by now.
        """
        tenant = entry.tenant
        if tenant.keys.get(entry.key) is entry:
            del tenant.keys[entry.key]
        self.cancel_tasks(entry)
        written = entry not in self.writing
        self._leave(entry, written=written)
        for replica in entry.replicas:
            if hand_over:
                tenant.used -= entry.size
                continue
            staged = isinstance(replica, Held) and replica in self.staged  # somebody may still be writing there
            keep = self.clock() + self.settings.put_release if staged else keep_until
            self._let_go(entry, replica, keep, written=written and replica.ready)
        entry.place = GONE
        self.stats.key_count -= 1
        self.key_bytes -= len(entry.key)
        if written:
            self.note(records.dropped(tenant.name, entry.key))

    def extend(self, entry: Entry, replica: Held | OnDisk) -> None:
        """Have one more replica of it."""
        entry.place = placed([*entry.replicas, replica])
        if isinstance(replica, Held):
            entry.tenant.used += entry.size
        else:
            replica.disk.used += replica.size
        if replica.ready:
            self.changed(entry)
        elif isinstance(replica, Held):
            self.staged[replica] = entry
            self.note(records.reserved(replica.segment.number, replica.offset, entry.size))

    def whole(self, entry: Entry, replicas: Sequence[Held]) -> None:
        """Those that were to be copied are."""
        for held in replicas:
            held.ready = True
            self.staged.pop(held, None)
        self.order.warm(entry)
        self.changed(entry)

    def without(self, entry: Entry, leaving: Sequence[Held | OnDisk], *, keep_until: float = 0.0) -> None:
        """Have all replicas of it but these. The value goes with its last one."""
        left = [each for each in entry.replicas if each not in leaving]
        if not left:
            self.drop(entry, keep_until=keep_until)
            return
        entry.place = placed(left)
        written = entry not in self.writing
        for replica in leaving:
            self._let_go(entry, replica, keep_until, written=written and replica.ready)
        if written:
            self.changed(entry)

    def _leave(self, entry: Entry, *, written: bool) -> None:
        if not written:
            del self.writing[entry]
            self.settled += 1
        more = entry.more
        if more is not None and more.group is not None:
            more.group.members.pop(entry, None)
            if not more.group.members:
                entry.tenant.groups.pop(more.group.name, None)
        if written:
            self.order.leave(entry)

    def _let_go(self, entry: Entry, replica: Held | OnDisk, keep_until: float, *, written: bool) -> None:
        """``written``: the journal has the place in the value's own record, which is written anew; else as reserved."""
        if isinstance(replica, OnDisk):
            replica.disk.used -= replica.size
            return
        entry.tenant.used -= entry.size
        self.staged.pop(replica, None)
        if replica.segment.gone:
            return
        if keep_until:
            self.discarded.append(Discarded(keep_until, replica.segment, replica.offset, entry.size))
            if written:
                self.note(records.reserved(replica.segment.number, replica.offset, entry.size))
            return
        self.segments.free(replica.segment, replica.offset, entry.size)
        if not written:
            self.note(records.released(replica.segment.number, replica.offset))

    # -- time

    def release_discarded(self, now: float, limit: int) -> bool:
        """Free what was kept for writers that did not end, up to ``limit`` places; tells whether any were freed."""
        freed = False
        while self.discarded and self.discarded[0].until <= now and limit > 0:
            limit -= 1
            freed = True
            each = self.discarded.popleft()
            self.stats.put_start_release_cnt += 1
            self.stats.put_start_discarded_staging_size -= each.size
            self.segments.free(each.segment, each.offset, each.size)
            self.note(records.released(each.segment.number, each.offset))
        return freed

    def reserved(self) -> Iterator[tuple[int, int, int]]:
        """Segment, offset and size of each place to which somebody may write."""
        for entry in self.writing:
            for held in entry.memory:
                if not held.segment.gone:
                    yield held.segment.number, held.offset, entry.size
        for held, entry in self.staged.items():
            if not held.segment.gone:
                yield held.segment.number, held.offset, entry.size
        for each in self.discarded:
            if not each.segment.gone:
                yield each.segment.number, each.offset, each.size

    def entries(self) -> Iterator[Entry]:
        """All values, those that are being written included."""
        for tenant in self.tenants.values():
            yield from tenant.keys.values()

    def next_disk_number(self) -> int:
        """For the id of a replica on a disk."""
        self._disk_number += 1
        return self._disk_number


def keep_for_readers(index: Index, entry: Entry) -> float:
    """Until when memory of a value stays as it is for who was told of it; 0 where nobody was lately."""
    until = entry.leased_until
    return until if until > index.clock() else 0.0


def _places(entries: Sequence[Entry]) -> Iterator[Held]:
    for entry in entries:
        yield from entry.memory


def _no_tasks(entry: Entry) -> None:
    """Before anybody has tasks there are none to cancel."""
