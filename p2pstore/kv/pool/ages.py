"""Values in the order in which they are to be evicted: by the ends of their leases, the oldest first.

A read only notes in the entry when its lease ends: moving it in a list at each read would cost more than the read. So
the entries lie in chunks, each for a span of time, where they were put when they were last looked at. The oldest chunk
is put in order once it is needed; what was used since goes on to the chunk where it belongs by then. No step looks at
more than a few chunks, however many values there are.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from p2pstore.kv.pool.entries import GONE, Entry

CHUNK = 256
"""Entries of a chunk; putting one in order takes some 0.2 ms."""

SPAN_S = 1.0
"""A chunk is for so long at least, unless it is full."""

MIN_CHUNK = 32
"""Entries below which a chunk goes on however long it takes, so that few entries make no many chunks."""


class Work:
    """How many entries may still be looked at in this step."""

    __slots__ = ("left",)

    def __init__(self, entries: int) -> None:
        self.left = entries


class Walk:
    """All entries that were there when it began and still are, in slices; those that moved meanwhile included."""

    def __init__(self, chunks: Iterable[list[Entry]]) -> None:
        self._chunks = list(chunks)
        self.moved: list[Entry] = []
        self.ended = False
        self._at = 0

    def step(self, count: int) -> list[Entry]:
        """The next of them, about ``count``; none when it has ended."""
        found: list[Entry] = []
        while len(found) < count and self._chunks:
            chunk = self._chunks[-1]
            some = chunk[self._at : self._at + count]
            self._at += len(some)
            found += some
            if self._at >= len(chunk):
                self._chunks.pop()
                self._at = 0
        if not found:
            found, self.moved = self.moved, []
            self.ended = not found
        return [entry for entry in found if entry.place is not GONE]


class Ages:
    """Entries that can be evicted, by age. Who is removed elsewhere is dropped when it is met, or by ``compact``."""

    def __init__(self) -> None:
        self._starts: list[float] = []
        self._chunks: list[list[Entry]] = []
        self._oldest: list[Entry] = []  # in order, the oldest last
        self._until = 0.0  # the youngest of them when they were put in order
        self.walks: list[Walk] = []
        self.held = 0
        self.gone = 0
        self._compacting = 0

    def add(self, entry: Entry) -> None:
        """Have one more; ``until`` says where it belongs."""
        self.held += 1
        self._chunk(entry.until if entry.more is None else entry.leased_until).append(entry)

    def add_all(self, entries: list[Entry], until: float) -> None:
        """Have some more that belong to one time, and have nothing special about them."""
        self.held += len(entries)
        at = 0
        while at < len(entries):
            chunk = self._chunk(until)
            more = max(1, CHUNK - len(chunk))
            chunk += entries[at : at + more]
            at += more

    def again(self, entry: Entry, at: float) -> None:
        """Have one again that ``oldest`` gave and that cannot go now; it is looked at again not before ``at``."""
        for walk in self.walks:
            walk.moved.append(entry)
        self.held += 1
        starts, chunks = self._starts, self._chunks
        start = float(math.ceil(at))  # so that they are few chunks
        number = bisect_left(starts, start)
        if number < len(starts) and starts[number] == start and len(chunks[number]) < CHUNK:
            chunks[number].append(entry)
        else:
            starts.insert(number, start)
            chunks.insert(number, [entry])

    def forget(self) -> None:
        """One of those that are here was removed."""
        self.gone += 1

    def oldest(self, now: float, work: Work) -> Entry | None:
        """The oldest that nobody has a lease on, taken out; None if there is none, or the work is used up."""
        while work.left > 0:
            if not self._oldest:
                if not self._prepare(now, work):
                    return None
                continue
            entry = self._oldest.pop()
            work.left -= 1
            if self._left(entry):
                self._dropped()
                continue
            until = entry.leased_until
            if until > self._until or until > now:
                self._move(entry, until)
                continue
            self.held -= 1
            return entry
        return None

    def walk(self) -> Walk:
        """Begin to look at all of them; ``stop`` must be called with it in the end."""
        walk = Walk([*self._chunks, list(self._oldest)])
        self.walks.append(walk)
        return walk

    def stop(self, walk: Walk) -> None:
        """That walk needs to hear of moves no more."""
        self.walks.remove(walk)

    def compact(self) -> bool:
        """Drop those that are gone from the next chunk, where they are many; tells whether there is more to do."""
        if self.gone <= CHUNK or self.gone * 2 < self.held:
            return False
        if self._compacting >= len(self._chunks):
            self._compacting = 0
            self._oldest = self._without_gone(self._oldest)
            return False
        at = self._compacting
        left = self._without_gone(self._chunks[at])
        if left:
            self._chunks[at] = left
            self._compacting += 1
        else:
            del self._chunks[at], self._starts[at]
        return True

    def _without_gone(self, chunk: list[Entry]) -> list[Entry]:
        left = [entry for entry in chunk if not self._left(entry)]
        self.gone -= len(chunk) - len(left)
        self.held -= len(chunk) - len(left)
        return left

    def _left(self, entry: Entry) -> bool:
        """Whether it belongs here no more."""
        return entry.place is GONE

    def _dropped(self) -> None:
        self.held -= 1
        self.gone -= 1

    def _move(self, entry: Entry, until: float) -> None:
        for walk in self.walks:
            walk.moved.append(entry)
        self._put(entry, until)

    def _put(self, entry: Entry, until: float) -> None:
        self._chunk(until).append(entry)

    def _chunk(self, until: float) -> list[Entry]:
        """Where something of that time belongs."""
        starts, chunks = self._starts, self._chunks
        last = bool(starts) and starts[-1] <= until
        at = len(starts) - 1 if last else bisect_right(starts, until) - 1
        if at < 0:
            starts.insert(0, until)
            chunks.insert(0, [])
            return chunks[0]
        chunk = chunks[at]
        full = len(chunk) >= CHUNK or (last and until - starts[at] >= SPAN_S and len(chunk) >= MIN_CHUNK)
        if full:
            starts.insert(at + 1, until)
            chunks.insert(at + 1, [])
            return chunks[at + 1]
        return chunk

    def _prepare(self, now: float, work: Work) -> bool:
        """Put the oldest chunk in order; tells whether there was one to look at."""
        if not self._starts or self._starts[0] > now:
            return False
        chunk = self._chunks.pop(0)
        del self._starts[0]
        upper = min(self._starts[0] if self._starts else now, now)
        ordered: list[tuple[float, int]] = []
        for number, entry in enumerate(chunk):
            if self._left(entry):
                self._dropped()
                continue
            until = entry.leased_until
            if until > upper:
                self._move(entry, until)
            else:
                ordered.append((-until, -number))
        work.left -= 1 + len(chunk) // 2  # looking at one costs less than half of evicting it
        ordered.sort()
        self._oldest = [chunk[-number] for _, number in ordered]
        self._until = -ordered[0][0] if ordered else now
        return True

    def __iter__(self) -> Iterator[Entry]:
        """All that are here and not gone."""
        for chunk in (*self._chunks, self._oldest):
            yield from (entry for entry in chunk if not self._left(entry))


class PinnedAges(Ages):
    """The same of values with a soft pin: one whose pin has ended is elsewhere."""

    def _left(self, entry: Entry) -> bool:
        return entry.place is GONE or entry.more is None or entry.more.pinned_until <= 0
