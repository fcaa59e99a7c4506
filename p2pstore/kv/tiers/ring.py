"""What lies where in the log, and what goes when something new is written. Pure: nothing is read or written here.

Records follow one another to the end of the file, and then from its beginning again, over the oldest ones. So the order
in which they were written is the order in which they go, and nothing has to be moved to make room::

    | first block | new | new | <head> | old | old | old | unused |

A record that does not fit before the end is written at the beginning, and what is old before the end goes: else it
would outlive what is newer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from p2pstore.kv.tiers.records import BLOCK, MAX_KEY, Header, span_of


class Place(NamedTuple):
    """Where a value is: its record is ``span`` bytes at ``offset``."""

    key: str
    offset: int
    span: int
    size: int
    sequence: int
    checksum: int

    @property
    def end(self) -> int:
        """Where the next record may begin."""
        return self.offset + self.span


class Plan(NamedTuple):
    """Where a value is to be written; ``left`` are the keys whose values go for it."""

    offset: int
    span: int
    sequence: int
    floor: int
    left: list[str]


class Ring:
    """The records of one file of at most ``capacity`` bytes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity // BLOCK * BLOCK
        self.places: dict[str, Place] = {}
        """What can be read, by key."""
        self._order: deque[Place] = deque()  # from the oldest to the newest, with those that were replaced
        self._head = BLOCK
        self._sequence = 0

    @property
    def stored(self) -> int:
        """Bytes of the values that can be read."""
        return sum(place.size for place in self.places.values())

    @property
    def newest(self) -> Place | None:
        """The record that was written last."""
        return self._order[-1] if self._order else None

    def fits(self, key: str, size: int) -> bool:
        """Whether a value can be here at all."""
        length = len(key.encode())
        return length <= MAX_KEY and span_of(length, size) <= self.capacity - BLOCK

    def plan(self, key: str, size: int) -> Plan:
        """Make room for a value that ``fits``. What has to go is not to be found from now on."""
        span = span_of(len(key.encode()), size)
        left: list[str] = []
        if self._head + span > self.capacity:
            while self._order and self._order[0].offset >= self._head:
                self._drop(left)
            self._head = BLOCK
        while self._order and self._head <= self._order[0].offset < self._head + span:
            self._drop(left)
        self._sequence += 1
        floor = self._order[0].sequence if self._order else self._sequence
        return Plan(self._head, span, self._sequence, floor, left)

    def keep(self, plan: Plan, key: str, size: int, checksum: int) -> None:
        """It was written. Without this the next one goes to the same place."""
        place = Place(key, plan.offset, plan.span, size, plan.sequence, checksum)
        self._order.append(place)
        self.places[key] = place
        self._head = place.end

    def shrink(self, plan: Plan) -> bool:
        """There is no room on the disk from this plan on: use what is before it; false where that is nothing.

        What was old behind it goes for the next one.
        """
        if plan.offset == BLOCK:
            return False
        self.capacity = plan.offset
        return True

    def forget(self, place: Place) -> bool:
        """It cannot be read; false where it is not there any more, or another in its stead."""
        if self.places.get(place.key) is not place:
            return False
        del self.places[place.key]
        return True

    def restore(self, found: Sequence[tuple[int, Header]]) -> list[Place]:
        """Begin with the records that a file has, by their offsets.

        What lies behind a limit that is smaller now is gone. Where that was a key's newest value, an older one must not
        come back in its stead. Returned is what the file has and nobody is to find again, whatever becomes of the
        records that say so: to be erased in this order, before the file is cut.
        """
        records = [_place(offset, header) for offset, header in sorted(found, key=lambda each: each[1].sequence)]
        floor = max((header.floor for _, header in found), default=0)
        newest = {place.key: place for place in records if place.sequence >= floor}
        lost = {key for key, place in newest.items() if place.end > self.capacity}
        self._order.clear()
        gone: list[Place] = []
        for place in records:
            stays = place.sequence >= floor and place.end <= self.capacity and place.key not in lost
            (self._order if stays else gone).append(place)
        self.places = {place.key: place for place in self._order}
        self._head = records[-1].end if records else BLOCK
        self._sequence = records[-1].sequence if records else self._sequence
        return gone

    def take_back(self, place: Place) -> None:
        """The newest record was not written to its end: what its key had before is what it has."""
        self._order.pop()
        self._head = place.offset
        self.places.pop(place.key, None)
        before = next((each for each in reversed(self._order) if each.key == place.key), None)
        if before is not None:
            self.places[place.key] = before

    def clear(self) -> None:
        """Nothing is there any more."""
        self._order.clear()
        self.places.clear()
        self._head = BLOCK

    def _drop(self, left: list[str]) -> None:
        place = self._order.popleft()
        if self.forget(place):
            left.append(place.key)


def _place(offset: int, header: Header) -> Place:
    return Place(header.key, offset, header.span, header.size, header.sequence, header.checksum)
