"""The memory that a bench moves, and the patterns that tell whether it moved the right bytes."""

from __future__ import annotations

import functools
import hashlib
import mmap

from engine.errors import StorageError

PERIOD = 65521
"""Bytes after which a pattern repeats: a prime, so that no two aligned blocks near each other are alike."""

_STEP = 1 << 20


@functools.lru_cache(maxsize=4)
def _tile(seed: int) -> bytes:
    return hashlib.shake_256(f"mooncake bench {seed}".encode()).digest(PERIOD)


def pattern(seed: int, offset: int, length: int) -> bytes:
    """``length`` bytes at ``offset`` of the endless pattern of ``seed``."""
    skew = offset % PERIOD
    tiles = -(-(skew + length) // PERIOD)
    return (_tile(seed) * tiles)[skew : skew + length]


class Memory:
    """Page-aligned anonymous memory, all of it present."""

    def __init__(self, length: int) -> None:
        """Filled with the pattern of seed 0. Raises ``StorageError`` where there is not enough."""
        try:
            self.map = mmap.mmap(-1, length)
        except (OSError, ValueError, OverflowError) as error:
            raise StorageError(path="memory", detail=f"{length} bytes: {error}") from None
        self.length = length
        self.fill(0, 0, length)

    def fill(self, seed: int, offset: int, length: int) -> None:
        """Put the pattern of ``seed`` there; a byte's place in the memory says which of the pattern it is."""
        for at in range(offset, offset + length, _STEP):
            count = min(_STEP, offset + length - at)
            self.map[at : at + count] = pattern(seed, at, count)

    def first_difference(self, seed: int, offset: int, length: int) -> int | None:
        """Where the first byte in the range is that is not the pattern's; None where there is none."""
        for at in range(offset, offset + length, _STEP):
            count = min(_STEP, offset + length - at)
            found, expected = self.map[at : at + count], pattern(seed, at, count)
            if found != expected:
                return at + next(index for index in range(count) if found[index] != expected[index])
        return None
