"""How many workers a get has, and what each receives into, by what there is: a decision, made of facts alone.

The figures behind the numbers are in docs/performance.md ("Ways of a get"). ``benchmarks/ways_of_a_get.py`` compares
what is chosen with other choices, on any machine.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

FEW_WORKERS = 2
"""For a source: one that brings while another waits for a message, a lock or a disk."""

BUSY_WORKERS = 4
"""Twice the cores, up to so many: each waits now and then, for its socket, a lock or a page. For one file it stays at
that: its lock lets one write at a time, and with free cores the others wait for it at work (16 cores: 2.4 s of the
processors for a GB with eight, 1.3 with four, and no sooner)."""

MANY_WORKERS = 8
"""Half of the cores, up to so many: the source needs as much, and the interpreter's lock has enough of them."""

WORTH_A_WORKER = 8 << 20
"""Bytes of the object for each worker beyond the few: with less, to begin and to end it costs more than it brings."""

CROWD = 8
"""Workers of one get, or those of two sources; beyond it is a swarm, whose sources are slow enough each to have few."""

PIECE_BYTES = 1 << 20
"""What a worker receives into, hashes and writes from: larger costs cache, smaller costs calls."""

SMALL_PIECE_BYTES = 1 << 18
"""The same in a crowd, whose buffers have to lie in one cache."""


class Place(enum.Enum):
    """Where the bytes of a get go."""

    FILE = "a file"
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
        return self.first if others + self.first <= self._crowd else self.further

    def piece_bytes(self, others: int) -> int:
        """What a worker receives into that begins while there are ``others``."""
        return self.piece if others < self._crowd else self.small_piece

    @property
    def _crowd(self) -> int:
        return max(CROWD, 2 * self.first)


def tuned(facts: Facts, connections: int = 0) -> Tuning:
    """The choice for a get. ``connections`` is what the user wants to each source; 0: whatever is best.

    With few cores it does not matter whether it is one file or many: what is won by writing to several at once, one
    wins by having one worker receive and hash while another holds the file's lock.
    """
    if connections:
        return Tuning(connections, connections)
    busy = 0 if facts.place is Place.GPU else min(2 * facts.cores, BUSY_WORKERS)  # a GPU copies by itself
    many = busy if facts.place is Place.FILE else max(busy, min(facts.cores // 2, MANY_WORKERS))
    return Tuning(max(FEW_WORKERS, min(many, facts.size // WORTH_A_WORKER)), FEW_WORKERS)
