"""In which order values may go: which wait for their eviction and where, and when soft pins end."""

from __future__ import annotations

import heapq

from p2pstore.kv.pool.ages import Ages, PinnedAges
from p2pstore.kv.pool.entries import GONE, Entry, Held
from p2pstore.kv.pool.stats import Stats

MIN_PINS = 1024
"""Soft pins of values that went are forgotten once they are as many as this, and as those that are left."""


class Order:
    """All values that were written to their end, each in one place here."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self.plain = Ages()
        self.soft = PinnedAges()
        self.hard: dict[Entry, None] = {}
        self.cold: dict[Entry, None] = {}
        """Values that are only on disks: to evict them makes no room."""
        self.taken: Entry | None = None
        """The value that the eviction has taken out of its queue just now."""
        self._pins: list[tuple[float, int, Entry]] = []  # soft pins by their end; those of values that went, too
        self._pinned = 0

    def file(self, entry: Entry, now: float) -> None:
        """Put it where values like it wait for their eviction. A soft pin begins now, unless it was begun before."""
        more = entry.more
        if more is None and isinstance(entry.place, Held):
            self.plain.add(entry)  # as nearly all are
            return
        if more is not None and (more.pin_s > 0 or more.pinned_until > 0):
            more.pinned_until = max(more.pinned_until, now + more.pin_s)
            more.pin_s = 0.0
            if more.pinned_until <= now:
                more.pinned_until = 0.0
        if more is not None and more.pinned_until > 0 and not more.hard:
            self._stats.soft_pin_key_count += 1
            self._pinned += 1
            heapq.heappush(self._pins, (more.pinned_until, self._pinned, entry))
        self.queue(entry)

    def queue(self, entry: Entry) -> None:
        """Have it wait for its eviction, if it can be evicted."""
        if entry.hard:
            self.hard[entry] = None
        elif not entry.memory:
            self.cold[entry] = None
        else:
            self._ages(entry).add(entry)

    def warm(self, entry: Entry) -> None:
        """It may be in memory again."""
        if entry in self.cold:
            del self.cold[entry]
            self.queue(entry)

    def leave(self, entry: Entry) -> None:
        """It goes."""
        if entry in self.hard:
            del self.hard[entry]
            return
        self._stats.soft_pin_key_count -= entry.more is not None and entry.more.pinned_until > 0
        if entry in self.cold:
            del self.cold[entry]
        elif entry is self.taken:
            self.taken = None
        else:
            self._ages(entry).forget()

    def unpin(self, now: float, limit: int) -> None:
        """End the soft pins whose time is over, up to ``limit``."""
        pins = self._pins
        while pins and pins[0][0] <= now and limit > 0:
            limit -= 1
            entry = heapq.heappop(pins)[2]
            more = entry.more
            if entry.place is not GONE and more is not None and 0 < more.pinned_until <= now:
                more.pinned_until = 0.0
                self._stats.soft_pin_key_count -= not more.hard
                if entry not in self.cold and entry not in self.hard:
                    self.soft.forget()
                    self.plain.add(entry)
        if len(pins) > 2 * self._stats.soft_pin_key_count + MIN_PINS:
            self._pins = [each for each in pins if each[2].place is not GONE]
            heapq.heapify(self._pins)

    @property
    def next_unpin(self) -> float | None:
        """When a soft pin ends next."""
        return self._pins[0][0] if self._pins else None

    def compact(self) -> bool:
        """Drop some of those that are gone, where they are many; tells whether there is more to do."""
        return self.plain.compact() or self.soft.compact()

    def _ages(self, entry: Entry) -> Ages:
        return self.soft if entry.more is not None and entry.more.pinned_until > 0 else self.plain
