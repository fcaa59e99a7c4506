"""The memory that clients gave, and in which of it a value is put."""

from __future__ import annotations

import enum
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from engine.rpc.messages import Segment
from p2pstore.kv.pool.extents import Extents

MAX_ADDRESS = 1 << 64
"""Addresses end here."""

OFFSET_BITS = 44
"""Of the id of a replica in memory; the others are the number of its segment."""

MAX_SIZE = 1 << OFFSET_BITS
"""Bytes of the largest segment."""

MAX_SEGMENTS = 1 << 19
"""Segments at a time: ids of replicas have so much room for their number."""


class Drain(enum.Enum):
    """Whether a segment is being emptied."""

    NO = ""
    DRAINING = "DRAINING"
    DRAINED = "DRAINED"


class SegmentInfo(NamedTuple):
    """What is told of a segment; ``silent``: seconds since its client was heard of."""

    name: str
    id: bytes
    client: bytes
    base: int
    size: int
    used: int
    endpoint: str
    protocol: str
    status: str
    silent: float = 0.0


class Mounted:
    """A segment. ``alive`` while its owner is there; ``gone`` once it was unmounted, and nothing in it counts."""

    __slots__ = ("alive", "base", "client", "closing", "drain", "endpoint", "extents", "first_id", "gone", "host_id",
                 "id", "name", "number", "owner", "protocol", "size", "suspected")  # fmt: skip

    def __init__(self, segment: Segment, client: bytes, number: int, taken: Iterable[tuple[int, int]] = ()) -> None:
        self.id = segment.id
        self.name = segment.name
        self.base = segment.base
        self.size = segment.size
        self.endpoint = segment.endpoint
        self.protocol = segment.protocol
        self.host_id = segment.host_id
        self.client = client
        self.number = number
        self.extents = Extents(segment.size, taken)
        self.first_id = number << OFFSET_BITS
        """Ids of replicas in it are this and their offset."""
        self.owner = segment.protocol, segment.endpoint
        self.alive = True
        self.gone = False
        self.closing: float | None = None
        """When it is unmounted, where that was announced: nothing new is put there."""
        self.suspected = False
        self.drain = Drain.NO
        """Nothing new is put into one that is being emptied, or was."""

    def same_as(self, segment: Segment) -> bool:
        """Whether that is this very memory."""
        return (self.id, self.base, self.size, self.endpoint) == (
            segment.id, segment.base, segment.size, segment.endpoint,
        )  # fmt: skip

    def overlaps(self, segment: Segment) -> bool:
        """Whether both claim the same bytes of one process."""
        return (
            self.endpoint == segment.endpoint
            and self.base < segment.base + segment.size
            and segment.base < self.base + self.size
        )

    @property
    def takes_values(self) -> bool:
        """Whether anything new may be put there."""
        return self.alive and self.closing is None and self.drain is Drain.NO

    @property
    def described_to_clients(self) -> Segment:
        """As its owner gave it."""
        return Segment(self.id, self.name, self.base, self.size, self.endpoint, self.protocol, self.host_id)

    def described(self) -> SegmentInfo:
        """For whoever asks."""
        status = "OK"
        if not self.alive:
            status = "ABSENT"
        elif self.closing is not None:
            status = "UNMOUNTING"
        elif self.drain is not Drain.NO:
            status = self.drain.value
        elif self.suspected:
            status = "SUSPECT"
        return SegmentInfo(
            self.name, self.id, self.client, self.base, self.size, self.extents.used, self.endpoint, self.protocol,
            status,
        )  # fmt: skip


NOWHERE = Mounted(Segment(b"", "", 0, 0, ""), b"", 0)
"""No segment: for who asks where something lies that does not lie in one."""
NOWHERE.alive = False


def valid(segment: Segment) -> bool:
    """Whether there can be such memory."""
    return segment.base > 0 and 0 < segment.size <= MAX_SIZE and segment.base + segment.size <= MAX_ADDRESS


class Segments:
    """All segments, which of them take values, and how full they are together."""

    def __init__(self, allocation: str, chance: random.Random) -> None:
        self._allocation = allocation
        self._chance = chance
        self.by_id: dict[bytes, Mounted] = {}
        self._open: list[Mounted] = []
        self._numbers: list[int] = []
        self._next = 1
        self.capacity = 0
        self.used = 0
        self._known = True
        self._largest = 0

    def __iter__(self) -> Iterator[Mounted]:
        return iter(self.by_id.values())

    def next_number(self) -> int | None:
        """A number that no segment has, or None when there are too many."""
        if self._numbers:
            return self._numbers.pop()
        if self._next > MAX_SEGMENTS:
            return None
        self._next += 1
        return self._next - 1

    def add(self, mounted: Mounted) -> None:
        """Have one more. It counts at once if its owner is there."""
        self.by_id[mounted.id] = mounted
        self._next = max(self._next, mounted.number + 1)
        if mounted.alive:
            mounted.alive = False
            self.wake(mounted)

    def wake(self, mounted: Mounted) -> None:
        """Its owner is there again."""
        if not mounted.alive and not mounted.gone:
            mounted.alive = True
            self.capacity += mounted.extents.capacity
            self.used += mounted.extents.used
        self.reopen()

    def sleep(self, mounted: Mounted) -> None:
        """Its owner is absent: it does not count."""
        if mounted.alive:
            mounted.alive = False
            self.capacity -= mounted.extents.capacity
            self.used -= mounted.extents.used
        self.reopen()

    def reopen(self) -> None:
        """Find out anew which take values, when that is asked next: many may go at once."""
        self._known = False

    @property
    def open(self) -> list[Mounted]:
        """Those that take values."""
        if not self._known:
            self._open = [each for each in self.by_id.values() if each.takes_values]
            self._largest = max((each.extents.capacity for each in self._open), default=0)
            self._known = True
        return self._open

    @property
    def max_value(self) -> int:
        """Bytes of the largest value that could be put if nothing else were there."""
        return self._largest if self._known or self.open else 0

    def remove(self, mounted: Mounted) -> None:
        """Have it no more; what lies there is swept later, and only then its number is free."""
        self.sleep(mounted)
        mounted.gone = True
        if self.by_id.get(mounted.id) is mounted:
            del self.by_id[mounted.id]
        self.reopen()

    def swept(self, mounted: Mounted) -> None:
        """Nothing refers to it any more."""
        self._numbers.append(mounted.number)

    def named(self, name: str) -> list[Mounted]:
        """Those of that name that take values."""
        return [each for each in self.open if each.name == name]

    def allocate(self, size: int, count: int, preferred: Sequence[str], host: str) -> list[tuple[Mounted, int]]:
        """Up to ``count`` places in segments of different names: as many as there is room for.

        Where somebody could not reach the owner nothing is put, as long as there are others.
        """
        opened = self._open if self._known else self.open
        if len(opened) == 1:
            only = opened[0]
            offset = self.take(only, size)
            return [] if offset is None else [(only, offset)]
        doubted = all(each.suspected for each in opened)  # then any will do; else those are left alone
        found: list[tuple[Mounted, int]] = []
        for segment in self._order(preferred, host):
            if (segment.suspected and not doubted) or any(other.name == segment.name for other, _ in found):
                continue
            offset = self.take(segment, size)
            if offset is not None:
                found.append((segment, offset))
                if len(found) >= count:
                    break
        return found

    def somewhere(self, size: int) -> tuple[Mounted, int] | None:
        """A place for a value that may lie anywhere; None where that needs a closer look, as ``allocate`` has it."""
        opened = self._open if self._known else self.open
        if len(opened) == 1:
            segment = opened[0]
        elif opened and self._allocation == "random":
            segment = opened[int(self._chance.random() * len(opened))]
            if segment.suspected:
                return None
        else:
            return None
        extents = segment.extents
        before = extents.used
        offset = extents.allocate(size)
        if offset is None:
            return None
        self.used += extents.used - before
        return segment, offset

    def places(self, size: int, count: int) -> list[tuple[Mounted, int]]:
        """The same for so many values of one size; fewer of them, where the others need a closer look."""
        opened = self._open if self._known else self.open
        if len(opened) == 1:
            segment = opened[0]
            return [(segment, offset) for offset in self._take_many(segment, size, count)]
        if not opened or self._allocation != "random":
            return []
        chance, number = self._chance.random, len(opened)
        chosen = [opened[int(chance() * number)] for _ in range(count)]
        offsets = {
            segment: iter([] if segment.suspected else self._take_many(segment, size, wanted))
            for segment, wanted in Counter(chosen).items()
        }
        return [(segment, offset) for segment in chosen if (offset := next(offsets[segment], None)) is not None]

    def _take_many(self, segment: Mounted, size: int, count: int) -> list[int]:
        extents = segment.extents
        before = extents.used
        offsets: list[int] = []
        while len(offsets) < count:
            some = extents.allocate_some(size, count - len(offsets))
            if not some:
                break
            offsets += some
        self.used += extents.used - before
        return offsets

    def take(self, segment: Mounted, size: int) -> int | None:
        """An offset in one segment."""
        extents = segment.extents
        before = extents.used
        offset = extents.allocate(size)
        self.used += extents.used - before
        return offset

    def free(self, segment: Mounted, offset: int, size: int) -> None:
        """Give a place back."""
        if segment.gone:
            return
        freed = segment.extents.free(offset, size)
        if segment.alive:
            self.used -= freed

    def room_for(self, total: int, longest: int) -> bool:
        """Whether so many bytes are free, and in one piece those of the longest value."""
        if self.capacity - self.used < total:
            return False
        for each in self.open:  # noqa: SIM110 - any() would take twice the time, and each put comes here
            if each.extents.fits(longest):
                return True
        return False

    def _order(self, preferred: Sequence[str], host: str) -> Iterator[Mounted]:
        opened = self.open
        for name in preferred:
            yield from (each for each in opened if each.name == name)
        if host:
            yield from (each for each in opened if each.host_id == host)
        if self._allocation == "free_ratio_first":
            yield from sorted(opened, key=lambda each: each.extents.used / max(1, each.extents.capacity))
        elif opened:
            first = int(self._chance.random() * len(opened))
            yield opened[first]
            yield from opened[first + 1 :]
            yield from opened[:first]
