"""Which values go when memory is short: the oldest that nobody reads, pinned ones last or never, groups as a whole.

Nothing here scans: values wait in the order of their age. A step evicts some hundred values at most, and says whether
there is more to do, so that nobody else has to wait for more than a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from p2pstore.kv.pool.ages import Ages, Work
from p2pstore.kv.pool.disks import Disks
from p2pstore.kv.pool.entries import GONE, Entry, Held, Tenant
from p2pstore.kv.pool.extents import rounded
from p2pstore.kv.pool.index import Index
from p2pstore.kv.pool.tenants import room_in

STEP_ENTRIES = 256
"""Values that one step looks at: evicting one takes some 8 us, with its record for the journal."""

STEP_S = 0.0025
"""A step that makes room beforehand ends after so long, on a machine that is slow or busy."""

AMPLE = 64
"""Where so many times as much is free as is to be put, nobody looks beforehand whether it is in one piece."""

TENANT_ENTRIES = 2048
"""Values of a tenant that are looked at for one that its quota has no room for: a millisecond where all are in use."""

FOR_QUOTA = "the tenant's quota is used up"
FOR_KEYS = "too many keys"
"""Why values go, besides want of memory."""

BUSY_S = 1.0
"""What cannot go now, because a task reads it, is looked at again after so long."""

ABSENT_S = 30.0
"""The same of what lies with an absent client: to evict that would make no room, and it may come back."""


class Eviction:
    """The watermark, and room for what is to be put."""

    def __init__(self, index: Index, disks: Disks) -> None:
        self._index = index
        self._disks = disks
        self._goal = -1
        """Bytes down to which the pass under way goes; -1 without one."""
        self.exhausted = False
        """Whether the last step found nothing more to evict."""

    def tick(self, now: float) -> bool:
        """Go on with the pass that the watermark asked for; tells whether it goes on."""
        segments, settings = self._index.segments, self._index.settings
        if self._goal < 0:
            if segments.used <= settings.high_watermark * segments.capacity or settings.eviction_ratio <= 0:
                return False
            ratio = segments.used / segments.capacity
            share = max(settings.eviction_ratio, ratio - settings.high_watermark + settings.eviction_ratio)
            self._goal = int(segments.used - share * segments.capacity)
            self._index.stats.attempted_evictions += 1
        before = segments.used
        self.step(now, self._for_a_while(lambda: segments.used > self._goal), "above the watermark", Work(STEP_ENTRIES))
        if segments.used < before:
            self._index.stats.successful_evictions += 1
        if segments.used <= self._goal or self.exhausted:
            self._goal = -1
        return self._goal >= 0

    def step(self, now: float, wanted: Callable[[], bool], why: str, work: Work) -> int:
        """Evict while ``wanted``, and there is work left; tells how many went. Then ``exhausted`` is set."""
        evicted = 0
        self.exhausted = False
        while wanted():
            found = self._next(now, work)
            if found is None:
                self.exhausted = work.left > 0
                break
            evicted += self._evict(*found, now, why)
        return evicted

    def down_to(self, goal: int, now: float, work: Work) -> None:
        """Evict until so many bytes are used at most, for a value that found no room."""
        segments = self._index.segments
        self.step(now, lambda: segments.used > goal, "no room for a put", work)

    def make_room(self, sizes: Sequence[int]) -> bool:
        """Evict one step for what is to be put; tells whether another step, before the put, may find more room."""
        segments = self._index.segments
        if segments.capacity - segments.used > AMPLE * sum(sizes):
            return False
        now = self._index.clock()
        if len(sizes) == 1:
            needed = longest = sizes[0] if sizes[0] <= segments.max_value else 0
        else:
            sizes = [size for size in sizes if size <= segments.max_value]
            needed, longest = sum(sizes), max(sizes, default=0)
        if not longest or segments.room_for(needed, longest):
            return False
        self.step(
            now, self._for_a_while(lambda: not segments.room_for(needed, longest)), "no room for a put",
            Work(STEP_ENTRIES),
        )  # fmt: skip
        return not self.exhausted and not segments.room_for(needed, longest)

    def make_room_in(self, tenant: Tenant, size: int, now: float) -> None:
        """Evict values of one tenant for one more that its quota has no room for, the first that were put first.

        What is used lately, or pinned, goes to the end of the row, so that the next time others are looked at.
        """
        if rounded(size) > tenant.quota:
            return
        soft = self._index.settings.evict_soft_pinned and self._index.stats.soft_pin_key_count > 0
        for soft_too in (False, True) if soft else (False,):
            for entry in list(islice(tenant.keys.values(), TENANT_ENTRIES)):
                if room_in(tenant, size):
                    return
                if entry.place is GONE:
                    continue
                members = [entry] if entry.more is None or entry.more.group is None else list(entry.more.group.members)
                if not any(self._stays(each, now, soft_too=soft_too) for each in members):
                    for each in members:
                        self._one(each, FOR_QUOTA)
                if entry.place is not GONE:
                    tenant.keys[entry.key] = tenant.keys.pop(entry.key)

    def _stays(self, entry: Entry, now: float, *, soft_too: bool) -> bool:
        if entry in self._index.writing or entry.hard or entry.until > now:
            return True
        return not soft_too and entry.soft(now)

    def _for_a_while(self, wanted: Callable[[], bool]) -> Callable[[], bool]:
        """The same, and that the step has not taken too long."""
        clock = self._index.clock
        end = clock() + STEP_S
        return lambda: wanted() and clock() < end

    def _next(self, now: float, work: Work) -> tuple[Ages, Entry] | None:
        index = self._index
        entry = index.order.plain.oldest(now, work)
        if entry is not None:
            return index.order.plain, entry
        if work.left > 0 and index.settings.evict_soft_pinned:
            entry = index.order.soft.oldest(now, work)
        return None if entry is None else (index.order.soft, entry)

    def _evict(self, ages: Ages, entry: Entry, now: float, why: str) -> int:
        """Let a value go that was taken out of its queue, with its group if it has one; tells how many went."""
        index = self._index
        group = entry.more.group if entry.more else None
        index.order.taken = entry
        if group is None:
            evicted = self._one(entry, why)
        else:
            soft_too = ages is index.order.soft
            members = [each for each in group.members if each not in index.writing and not each.hard]
            leased = any(each.until > now for each in members)
            members = [each for each in members if not leased and (soft_too or not each.soft(now))]
            evicted = sum(self._one(each, why) for each in members)
        index.order.taken = None
        if entry.place is not GONE:
            memory = entry.memory
            if memory:
                present = any(held.segment.alive for held in memory)
                ages.again(entry, now + (BUSY_S if present else ABSENT_S))
            else:
                index.order.queue(entry)
        return evicted

    def _one(self, entry: Entry, why: str) -> int:
        leaving: list[Held] = [held for held in entry.memory if held.ready and not held.holds and held.segment.alive]
        if not leaving:
            return 0
        index = self._index
        if index.settings.offload_on_evict and not entry.disks and self._disks.offer(entry):
            return 0  # it goes once it is on the disk
        index.stats.evicted_key_count += 1
        index.stats.evicted_size_bytes += entry.size * len(leaving)
        index.tell(entry, "evicted", why)
        index.without(entry, leaving)
        return 1
