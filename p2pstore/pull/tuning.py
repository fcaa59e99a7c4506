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

FILES_WORKERS = 16
"""As many as there are cores, up to so many: most of what a worker does is to write, in the kernel."""

HOST_WORKERS = 12
"""The same for memory, of three quarters of the cores: the interpreter's lock has enough of them."""

GPU_WORKERS = 8
"""The same for a GPU, which copies by itself, of half of the cores."""

WORTH_A_WORKER = 8 << 20
"""Bytes of the object for each worker beyond the few: with less, to begin and to end it costs more than it brings."""

CROWD = 8
"""Workers of one get beyond which the buffers of further sources have to be small, to lie in one cache."""

PIECE_BYTES = 1 << 20
"""What a worker receives into, hashes and writes from: larger costs cache, smaller costs calls."""

LARGE_PIECE_BYTES = 4 << 20
"""The same of the first source with ``MANY_CORES``, whose workers wait for the interpreter's lock after each call."""

MANY_CORES = 8
"""From so many on the lock costs a worker more than the cache that a large piece does not fit."""

SMALL_PIECE_BYTES = 1 << 18
"""The same in a crowd."""


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
    """``first`` workers for the first source, ``further`` for each that comes to others.

    All are threads of one interpreter, which more of them make slower: with twenty, eight for each of the first two of
    four sources, a GPU got 9.4 GB/s; eight, two for each, brought 15.3.
    """

    first: int
    further: int
    piece: int = PIECE_BYTES
    small_piece: int = SMALL_PIECE_BYTES

    def workers(self, others: int) -> int:
        """How many workers a source gets that begins while there are ``others``."""
        return self.further if others else self.first

    def piece_bytes(self, others: int) -> int:
        """What a worker receives into that begins while there are ``others``."""
        if not others:
            return self.piece
        return min(self.piece, PIECE_BYTES) if others < CROWD else self.small_piece


def tuned(facts: Facts, connections: int = 0) -> Tuning:
    """The choice for a get. ``connections`` is what the user wants to each source; 0: whatever is best.

    With few cores it does not matter whether it is one file or many: what is won by writing to several at once, one
    wins by having one worker receive and hash while another holds the file's lock.
    """
    cores, place = facts.cores, facts.place
    piece = LARGE_PIECE_BYTES if place is Place.FILES and cores >= MANY_CORES else PIECE_BYTES
    if connections:
        return Tuning(connections, connections, piece)
    busy = min(2 * cores, BUSY_WORKERS)
    many = {
        Place.FILE: busy,
        Place.FILES: max(busy, min(cores, FILES_WORKERS)),
        Place.HOST: max(busy, min(cores * 3 // 4, HOST_WORKERS)),
        Place.GPU: min(cores // 2, GPU_WORKERS),
    }[place]
    return Tuning(max(FEW_WORKERS, min(many, facts.size // WORTH_A_WORKER)), FEW_WORKERS, piece)
