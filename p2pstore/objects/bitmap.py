"""Which chunks of an object somebody has. Written by one thread at a time, read by any."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator


class Bitmap:
    """A fixed number of bits, all clear at first.

    One byte a bit in memory, so that a test is an index and a run is a slice; packed, eight to a byte and the first
    chunk in the lowest bit, on the wire.
    """

    __slots__ = ("_bits", "count")

    def __init__(self, size: int, *, full: bool = False) -> None:
        self._bits = bytearray(b"\1" * size if full else size)
        self.count = size if full else 0

    def __len__(self) -> int:
        return len(self._bits)

    def __contains__(self, index: int) -> bool:
        return self._bits[index] != 0

    def __iter__(self) -> Iterator[int]:
        """The indexes that are set, ascending."""
        at = self._bits.find(1)
        while at >= 0:
            yield at
            at = self._bits.find(1, at + 1)

    @property
    def full(self) -> bool:
        """Whether every bit is set."""
        return self.count == len(self._bits)

    def add(self, index: int) -> bool:
        """Set a bit; False if it was set already."""
        if self._bits[index]:
            return False
        self._bits[index] = 1
        self.count += 1
        return True

    def update(self, indexes: Iterable[int]) -> None:
        """Set several bits."""
        for index in indexes:
            self.add(index)

    def has_all(self, run: range) -> bool:
        """Whether every index of a contiguous range is set."""
        return self._bits.find(0, run.start, run.stop) < 0

    def missing(self) -> Iterator[int]:
        """The indexes that are clear, ascending."""
        at = self._bits.find(0)
        while at >= 0:
            yield at
            at = self._bits.find(0, at + 1)

    def to_text(self) -> str:
        """Packed and in base64, for the wire."""
        packed = bytearray(-(-len(self._bits) // 8))
        for index in self:
            packed[index >> 3] |= 1 << (index & 7)
        return base64.b64encode(packed).decode()

    @classmethod
    def from_text(cls, text: str, size: int) -> Bitmap:
        """The inverse of ``to_text``. Raises ``ValueError`` for anything else."""
        try:
            packed = base64.b64decode(text, validate=True)
        except (binascii.Error, TypeError) as error:
            raise ValueError("not base64") from error
        if len(packed) != -(-size // 8):
            raise ValueError("a bitmap of another length")
        if size % 8 and packed[-1] >> (size % 8):
            raise ValueError("bits of a bitmap beyond its end")
        made = cls(size)
        made.update(i for i in range(size) if packed[i >> 3] >> (i & 7) & 1)
        return made
