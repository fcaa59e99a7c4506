"""A pool from the records of the one before, and the records of a snapshot.

All clients are absent at first: their values can be read once they mount the same memory again. What somebody was told
to write to stays reserved for as long as after a put that did not end, because that somebody may still be writing; and
all values are leased, because somebody may still be reading.
"""

from __future__ import annotations

from operator import itemgetter
from typing import NamedTuple

from p2pstore.kv.pool import records
from p2pstore.kv.pool.clients import Client, Disk
from p2pstore.kv.pool.entries import GONE, Entry, Held, More, OnDisk, placed
from p2pstore.kv.pool.extents import rounded
from p2pstore.kv.pool.index import Discarded, Index
from p2pstore.kv.pool.segments import Mounted
from p2pstore.kv.pool.walks import STEP_ENTRIES, Everything, Steps


class _Memory:
    """A segment as the records have it; another with the same number is another."""

    __slots__ = ("gone", "mount", "mounted", "taken")

    def __init__(self, mount: records.Mount) -> None:
        self.mount = mount
        self.gone = False
        self.taken: list[_Taken] = []
        self.mounted: Mounted | None = None


class _Taken(NamedTuple):
    """Bytes of a segment; ``name`` is whose, None if they are reserved."""

    offset: int
    end: int
    name: tuple[str, str] | None


class _Place(NamedTuple):
    memory: _Memory
    offset: int


class _Value(NamedTuple):
    record: records.Value
    memory: tuple[_Place, ...]


class Restoring:
    """Takes records in their order; then ``into`` an index that is empty."""

    def __init__(self) -> None:
        self._memories: dict[int, _Memory] = {}
        self._values: dict[tuple[str, str], _Value] = {}
        self._reserved: dict[tuple[_Memory, int], int] = {}
        self._quotas: dict[str, int] = {}

    def apply(self, data: bytes) -> None:
        """One more record. Raises ``records.BadRecord``."""
        record = records.read(data)
        if isinstance(record, records.Value):
            self._value(record)
        elif isinstance(record, records.Dropped):
            self._values.pop((record.tenant, record.key), None)
        elif isinstance(record, records.Mount):
            self._memories[record.number] = _Memory(record)
        elif isinstance(record, records.Quota):
            self._quotas[record.tenant] = record.size
        elif isinstance(record, records.Unmount):
            memory = self._memories.pop(record.number, None)
            if memory is not None:
                memory.gone = True
        else:
            memory = self._memories.get(record.segment)
            if memory is None:
                return
            if isinstance(record, records.Reserved):
                self._reserved[memory, record.offset] = record.size
            else:
                self._reserved.pop((memory, record.offset), None)

    def _value(self, record: records.Value) -> None:
        places = []
        for place in record.places:
            if isinstance(place, records.MemoryPlace):
                memory = self._memories.get(place.segment)
                if memory is not None:
                    places.append(_Place(memory, place.offset))
                    self._reserved.pop((memory, place.offset), None)
        self._values[record.tenant, record.key] = _Value(record, tuple(places))

    def into(self, index: Index) -> Steps[None]:
        """Have the index, which is empty, be as the records say."""
        yield from self._place()
        now = index.clock()
        for quota in self._quotas.items():
            index.tenants.keep_quota(*quota)
        for memory in self._memories.values():
            self._mount(memory, index, now)
            yield
        until = now + index.settings.lease_ms / 1000
        values = self._values
        while values:  # so that what was read goes as what it says comes
            _, value = values.popitem()
            self._store(value, index, now, until)
            if not len(values) % STEP_ENTRIES:
                yield

    def _place(self) -> Steps[None]:
        """Find out what of each segment is taken. No two values are believed that claim the same bytes."""
        for number, (name, value) in enumerate(self._values.items()):
            if not number % STEP_ENTRIES:
                yield
            for memory, offset in value.memory:
                memory.taken.append(_Taken(offset, offset + rounded(value.record.size), name))
        for (memory, offset), size in self._reserved.items():
            memory.taken.append(_Taken(offset, offset + rounded(size), None))
        yield
        for memory in self._memories.values():
            memory.taken = self._apart(memory.taken, memory.mount.segment.size)
            yield

    def _apart(self, taken: list[_Taken], size: int) -> list[_Taken]:
        """The same without overlaps: where two claim the same bytes, both values go, and the bytes stay reserved."""
        found: list[_Taken] = []
        for each in sorted(taken, key=itemgetter(0)):
            before = found[-1] if found else None
            if each.end > rounded(size):
                self._doubt(each)
            elif before is not None and each.offset < before.end:
                self._doubt(before)
                self._doubt(each)
                found[-1] = _Taken(before.offset, max(before.end, each.end), None)
            else:
                found.append(each)
        return found

    def _doubt(self, taken: _Taken) -> None:
        if taken.name is not None:
            self._values.pop(taken.name, None)

    def _mount(self, memory: _Memory, index: Index, now: float) -> None:
        mount = memory.mount
        taken = [each for each in memory.taken if each.name is None or each.name in self._values]
        memory.taken = []
        mounted = Mounted(
            mount.segment, mount.client, mount.number, [(each.offset, each.end - each.offset) for each in taken]
        )
        memory.mounted = mounted
        mounted.alive = False
        index.segments.add(mounted)
        _absent(index, mount.client, now).segments[mount.segment.id] = mounted
        for each in taken:
            if each.name is None:
                size = each.end - each.offset
                index.discarded.append(Discarded(now + index.settings.put_release, mounted, each.offset, size))
                index.stats.put_start_discarded_staging_size += size

    def _store(self, value: _Value, index: Index, now: float, until: float) -> None:
        record = value.record
        tenant = index.tenants.for_put(record.tenant)
        replicas: list[Held | OnDisk] = []
        for memory, offset in value.memory:
            if memory.mounted is not None:
                held = Held(memory.mounted, offset)
                held.ready = True
                replicas.append(held)
        for place in record.places:
            if isinstance(place, records.DiskPlace):
                client = _absent(index, place.client, now)
                disk = client.disk = client.disk or Disk(offloading=False)
                disk.used += place.size
                replicas.append(OnDisk(client, disk, place.size, place.endpoint, index.next_disk_number()))
        if tenant is None or not replicas:
            return
        entry = Entry(
            record.key, tenant, index.shared.size(record.size), index.shared.id(record.writer), placed(replicas)
        )
        entry.checksum = record.checksum
        entry.until = until
        if record.hard or record.soft_s or record.data_type:
            more = entry.more = More()
            more.hard = record.hard
            more.pin_s = record.soft_s
            more.data_type = record.data_type
        if record.group:
            index.in_group(entry, record.group)
        index.have(entry, now)


def _absent(index: Index, client: bytes, now: float) -> Client:
    """A client as it was, that is to come back."""
    known = index.clients.get(client)
    if known is None:
        known = index.clients[client] = Client(client, now)
        known.alive = False
        known.absent_since = now
    return known


class Snapshot:
    """The records that make a pool again, in slices, while it goes on.

    Together with the records that are put down since it began they say how the pool is then. It must be stepped to its
    end, or closed.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._head = [records.mounted(each.number, each.client, each.described_to_clients) for each in index.segments]
        self._head += [records.quota(*each) for each in index.tenants.quotas_set.items()]
        self._head += [records.reserved(*place) for place in index.reserved()]  # few, so they are taken at once
        self._walk = Everything(index)

    def step(self, entries: int) -> list[bytes]:
        """The records of about so many values more; ``ended`` says when these were the last."""
        if self._head:
            head, self._head = self._head, []
            return head
        return self._of(self._walk.step(entries))

    @property
    def ended(self) -> bool:
        """Whether there is no more."""
        return self._walk.ended

    def close(self) -> None:
        """Have no more of it."""
        self._walk.close()

    def _of(self, entries: list[Entry]) -> list[bytes]:
        index = self._index
        now = index.clock()
        return [
            records.value(entry, now) for entry in entries if entry.place is not GONE and entry not in index.writing
        ]
