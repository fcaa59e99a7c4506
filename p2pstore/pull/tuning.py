"""How many workers a get has, and what each receives into, by what there is: a decision, made of facts alone.

The figures behind the numbers are in docs/performance.md ("Ways of a get"). ``benchmarks/ways_of_a_get.py`` compares
what is chosen with other choices, on any machine.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

FEW_WORKERS = 2
"""For a source: one that brings while another waits for a message, a lock or a disk."""

MANY_WORKERS = 4
"""More of them take the interpreter's lock from one another so often that nothing is won, on 16 cores too."""

GPU_WORKERS = 8
"""Where a GPU copies by itself, a worker gives that lock away for longer."""

CROWD = 8
"""Workers of one get; those beyond come of a swarm, whose sources are slow enough each to have few."""

PIECE_BYTES = 1 << 20
"""What a worker receives into, hashes and writes from: larger costs cache, smaller costs calls."""

SMALL_PIECE_BYTES = 1 << 18
"""The same in a crowd, whose buffers have to lie in one cache."""

SIDE_BY_SIDE = 1.5
"""Files as large as the largest, of which an object has the bytes: with fewer, one file is what is written."""


class Place(enum.Enum):
    """Where the bytes of a get go."""

    FILES = "files"
    HOST = "memory of the host"
    GPU = "memory of a GPU"


@dataclass(frozen=True, slots=True)
class Landing:
    """A destination, as far as it matters here.

    ``side_by_side`` is how many files there would be if each were as large as the largest. Most file systems let one
    write at a time to a file, so that only different ones are written side by side.
    """

    place: Place
    side_by_side: float = 1.0

    @classmethod
    def of_files(cls, sizes: Iterable[int]) -> Landing:
        """Files of so many bytes each."""
        total = most = 0
        for size in sizes:
            total += size
            most = max(most, size)
        return cls(Place.FILES, total / most if most else 1.0)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a get finds. ``cores`` are those that this process may use."""

    cores: int
    landing: Landing


@dataclass(frozen=True, slots=True)
class Tuning:
    """``first`` workers for a source while there are few of them, ``further`` for one that comes to a crowd."""

    first: int
    further: int
    piece: int = PIECE_BYTES
    small_piece: int = SMALL_PIECE_BYTES

    def workers(self, others: int) -> int:
        """How many workers a source gets that begins while there are ``others``."""
        return self.first if others + self.first <= CROWD else self.further

    def piece_bytes(self, others: int) -> int:
        """What a worker receives into that begins while there are ``others``."""
        return self.piece if others < CROWD else self.small_piece


def tuned(facts: Facts, connections: int = 0) -> Tuning:
    """The choice for a get. ``connections`` is what the user wants to each source; 0: whatever is best."""
    if connections:
        return Tuning(connections, connections)
    return Tuning(_workers(facts), FEW_WORKERS)


def _workers(facts: Facts) -> int:
    """For the first source."""
    landing = facts.landing
    if landing.place is Place.GPU:
        return max(FEW_WORKERS, min(facts.cores // 2, GPU_WORKERS))
    if landing.place is Place.FILES and landing.side_by_side < SIDE_BY_SIDE:
        return FEW_WORKERS
    return max(FEW_WORKERS, min(facts.cores + 1, MANY_WORKERS))
