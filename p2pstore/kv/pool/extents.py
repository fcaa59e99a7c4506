"""Which parts of a segment are free: an allocator of offsets that knows no memory, only numbers.

Free extents lie in bins by size, eight to a power of two, and a bit for each bin says whether it holds any, as in TLSF.
So a fitting extent is found without a search, and its neighbours, when something is given back, by their ends. What is
allocated takes no memory here: its owner knows where it lies and how long it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

MAX_SIZES = 4096
"""Sizes of which it is remembered where extents for them are; a pool has values of few."""

ALIGN = 64
"""Bytes that all offsets and lengths are a multiple of: a cache line."""


def rounded(size: int) -> int:
    """What a value of so many bytes takes."""
    return -(-size // ALIGN) * ALIGN


def _bin(size: int) -> int:
    """The bin of a free extent."""
    units = (size + ALIGN - 1) // ALIGN
    shift = max(0, units.bit_length() - 4)
    return (shift << 3) + (units >> shift)


@lru_cache(MAX_SIZES)
def _sought(size: int) -> tuple[int, int, int]:
    """What such a value takes, the bin where an extent may be long enough, and the first where all are."""
    size = rounded(size)
    number = _bin(size)
    units = size // ALIGN
    shift = max(0, units.bit_length() - 4)
    return size, number, number if (units >> shift) << shift == units else number + 1


class Extents:
    """The free extents of one segment."""

    def __init__(self, capacity: int, taken: Iterable[tuple[int, int]] = ()) -> None:
        """All is free but ``taken``: (offset, size) in any order. Raises ``ValueError`` where two of them overlap."""
        self.capacity = capacity // ALIGN * ALIGN
        self.used = 0
        self._size: dict[int, int] = {}  # of free extents, by their start
        self._start: dict[int, int] = {}  # the same by their end
        self._bins: dict[int, dict[int, None]] = {}
        self._filled = 0
        at = 0
        for offset, size in sorted(taken):
            if offset < at:
                raise ValueError(f"{offset} is taken twice")
            self._add(at, offset - at)
            at = offset + rounded(size)
            self.used += rounded(size)
        if at > self.capacity:
            raise ValueError(f"{at} lies behind the end")
        self._add(at, self.capacity - at)

    def allocate(self, size: int) -> int | None:
        """The offset of ``size`` bytes that were free, or None where nothing that long is."""
        size, number, sure = _sought(size)
        filled = self._filled >> sure
        if filled:
            number = sure + (filled & -filled).bit_length() - 1
            bin_ = self._bins[number]
            offset = next(reversed(bin_))  # the youngest: looking for the first would pass all that are gone
            length = self._size[offset]
            left = length - size
            units = left // ALIGN
            shift = units.bit_length() - 4
            if shift > 0 and (shift << 3) + (units >> shift) == number:  # what is left stays where it is
                del self._start[offset + length]
                self._start[offset + left] = offset
                self._size[offset] = left
                self.used += size
                return offset + left
            del bin_[offset]
        else:
            bin_ = self._bins.get(number, {})
            offset = next((at for at in bin_ if self._size[at] >= size), -1)
            if offset < 0:
                return None
            del bin_[offset]
        if not bin_:
            del self._bins[number]
            self._filled &= ~(1 << number)
        length = self._size.pop(offset)
        del self._start[offset + length]
        self._add(offset + size, length - size)
        self.used += size
        return offset

    def allocate_some(self, size: int, count: int) -> range:
        """The offsets of up to ``count`` times as many bytes, at least one; of none where nothing that long is free.

        They are pieces of the extent that ``allocate`` would take from, beside one another.
        """
        size, number, sure = _sought(size)
        filled = self._filled >> sure
        if filled:
            number = sure + (filled & -filled).bit_length() - 1
            offset = next(reversed(self._bins[number]))
        else:
            offset = next((at for at in self._bins.get(number, ()) if self._size[at] >= size), -1)
            if offset < 0:
                return range(0)
        length = self._size[offset]
        taken = min(count, length // size) * size
        self._take(offset, length)
        self._add(offset, length - taken)
        self.used += taken
        return range(offset + length - taken, offset + length, size)

    def free(self, offset: int, size: int) -> int:
        """Give back what was allocated; tells how much that was."""
        size = rounded(size)
        self.used -= size
        end = offset + size
        before = self._start.get(offset)
        if before is not None:
            self._take(before, offset - before)
            offset = before
        behind = self._size.get(end)
        if behind is not None:
            self._take(end, behind)
            end += behind
        self._add(offset, end - offset)
        return size

    def fits(self, size: int) -> bool:
        """Whether ``allocate`` would find so many bytes."""
        if self._filled >> _bin(size) + 1:  # any of a longer bin will do
            return True
        size = rounded(size)
        return any(self._size[at] >= size for at in self._bins.get(_bin(size), ()))

    @property
    def largest(self) -> int:
        """Bytes of the longest free extent."""
        if not self._filled:
            return 0
        return max(self._size[at] for at in self._bins[self._filled.bit_length() - 1])

    def _add(self, offset: int, size: int) -> None:
        if size <= 0:
            return
        self._size[offset] = size
        self._start[offset + size] = offset
        number = _bin(size)
        bin_ = self._bins.get(number)
        if bin_ is None:
            self._bins[number] = {offset: None}
            self._filled |= 1 << number
        else:
            bin_[offset] = None

    def _take(self, offset: int, size: int) -> None:
        del self._size[offset], self._start[offset + size]
        number = _bin(size)
        of_size = self._bins[number]
        of_size.pop(offset, None)
        if not of_size:
            del self._bins[number]
            self._filled &= ~(1 << number)
