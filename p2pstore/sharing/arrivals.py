"""Copies of what other processes of the host have brought, to this one's memory on its GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from engine.cuda.copies import Copies
from engine.cuda.device_memory import DeviceMemory
from engine.cuda.load import Cuda
from engine.cuda.pinned import until_done
from p2pstore.errors import StorageError
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import Lent
from p2pstore.sharing.ring import Ring
from p2pstore.tensors.spread import Layout, SpreadMap

COPY_SECONDS = 60.0
"""For a copy to end. It comes after what the caller's stream had to do before."""

Copied = tuple[int, DeviceMemory, int, int]


def mine(layout: Layout, pieces: int, areas: Sequence[Lent]) -> list[Copied]:
    """What of a chunk that was put together goes to the areas of one set of pieces: from where, and where to."""
    found: list[Copied] = []
    for part in layout.parts:
        for place in part.places:
            if place.pieces == pieces:
                memory = areas[place.area]
                assert isinstance(memory, DeviceMemory)  # noqa: S101 - areas with bytes are of GPUs
                found.append((part.start, memory, place.offset, part.length))
    return found


class Arrivals:
    """One process's; used by a thread for each other process."""

    def __init__(
        self,
        cuda: Cuda,
        device: int,
        manifest: Manifest,
        spread: SpreadMap,
        pieces: int,
        areas: Sequence[Lent],
        ring: Ring,
    ) -> None:
        """``pieces`` is the number of this process's set in ``spread``, which go to ``areas``."""
        self._driver = cuda.driver
        self._device = device
        self._manifest = manifest
        self._spread = spread
        self._pieces = pieces
        self._areas = areas
        self._ring = ring
        self._copies = Copies(cuda)

    def copy(self, process: int, chunk: int, number: int, check: Callable[[], None]) -> None:
        """Copy what this process wants of a chunk, and wait for that. ``check`` is called meanwhile.

        Raises ``ValueError`` for a buffer that is none, ``GpuFailed``, and ``StorageError`` where it does not end.
        """
        source = self._ring.address(process, number)
        where = self._manifest.chunk(chunk)
        layout = self._spread.layout(where.offset, where.offset + where.length)
        parts = [
            (source + start, memory, to, length)
            for start, memory, to, length in mine(layout, self._pieces, self._areas)
        ]
        self._see_done(self._copies.begin(parts), check)

    def _see_done(self, event: int, check: Callable[[], None]) -> None:
        if not until_done(self._driver, self._device, event, time.monotonic() + COPY_SECONDS, check):
            detail = f"copies have not ended for {COPY_SECONDS:g} s; the stream that they wait for is still busy"
            raise StorageError(path=f"memory of GPU {self._device}", detail=detail)

    def forget(self, process: int) -> None:
        """Nothing more is copied that this one has brought."""

    def close(self) -> None:
        """Wait until nothing is copied any more."""
        self._copies.close()
