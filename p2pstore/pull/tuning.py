"""How many workers a get has, and what each receives into, by what there is: a decision, made of facts alone.

The figures behind the numbers are in docs/performance.md ("Ways of a get"). ``benchmarks/ways_of_a_get.py`` compares
what is chosen with other choices, on any machine.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

FEW_WORKERS = 2
"""For a source: one that brings while another waits for a message, a lock or a disk."""

MANY_WORKERS = 4
"""More of them take the interpreter's lock from one another so often that nothing is won, on 16 cores too."""

GPU_WORKERS = 8
"""Where a GPU copies by itself, a worker gives that lock away for longer."""

WORTH_A_WORKER = 8 << 20
"""Bytes of the object for each worker beyond the few: with less, to begin and to end it costs more than it brings."""

CROWD = 8
"""Workers of one get; those beyond come of a swarm, whose sources are slow enough each to have few."""

PIECE_BYTES = 1 << 20
"""What a worker receives into, hashes and writes from: larger costs cache, smaller costs calls."""

SMALL_PIECE_BYTES = 1 << 18
"""The same in a crowd, whose buffers have to lie in one cache."""


class Place(enum.Enum):
    """Where the bytes of a get go."""

    FILES = "files"
    HOST = "memory of the host"
    GPU = "memory of a GPU"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a get finds. ``cores`` are those that this process may use, ``size`` bytes that are to come."""

    cores: int
    place: Place
    size: int


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
    """The choice for a get. ``connections`` is what the user wants to each source; 0: whatever is best.

    Whether it is one file or many does not matter: what is won by writing to several at once, one wins by having one
    worker receive and hash while another holds the file's lock.
    """
    if connections:
        return Tuning(connections, connections)
    busy = min(facts.cores // 2, GPU_WORKERS) if facts.place is Place.GPU else min(2 * facts.cores, MANY_WORKERS)
    return Tuning(max(FEW_WORKERS, min(busy, facts.size // WORTH_A_WORKER)), FEW_WORKERS)
