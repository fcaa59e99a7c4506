"""Where copies lie while the network is measured: in memory, which is at hand and does not get slower than a disk."""

from __future__ import annotations

import mmap
from pathlib import Path

from engine.cgroups import memory_available

SHARED = Path("/dev/shm")  # noqa: S108 - the bench makes a directory of its own in it
"""A file system in memory, where there is one."""

SPARE = 1 << 30
"""Bytes of memory that are left to everybody else."""


def directory_in_memory(size: int) -> Path | None:
    """A directory in memory with room for ``size`` bytes twice over; None where there is none."""
    try:
        return SHARED if SHARED.is_mount() and _available() > 2 * size + SPARE else None
    except OSError:
        return None


class Reserve:
    """Memory that was written to, and is free at once when it is closed.

    On a virtual machine that gives free memory back to its host, the first write to a page costs many times as much as
    the next: a cluster on two cores would do little else. A host of its own has its memory.
    """

    def __init__(self, size: int) -> None:
        """Takes ``size`` bytes, or none where they are not to be had."""
        self._map: mmap.mmap | None = None
        if size and _available() > 2 * size + SPARE:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
            self._map = mmap.mmap(-1, size, flags=flags)

    def close(self) -> None:
        """Free it."""
        if self._map is not None:
            self._map.close()
            self._map = None


def _available() -> int:
    """Bytes of memory that can be had without swapping; 0 where the system does not tell."""
    return memory_available() or 0
