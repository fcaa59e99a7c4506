"""Copies of what other processes of the host have brought, to this one's memory on its GPU.

What the bringer has on its own GPU as well, this one reads from there if it can, and the rest out of shared memory.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from engine.cuda.copies import Copies, FromHere
from engine.cuda.device_memory import DeviceMemory
from engine.cuda.load import Cuda
from engine.cuda.pinned import until_done
from engine.errors import GpuFailed
from p2pstore.errors import StorageError
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import Lent
from p2pstore.sharing.direct import Direct
from p2pstore.sharing.ring import Ring
from p2pstore.tensors.spread import Layout, Part, SpreadMap

COPY_SECONDS = 60.0
"""For a copy to end. It comes after what the caller's stream had to do before."""


def mine(layout: Layout, source: int, pieces: int, areas: Sequence[Lent]) -> list[FromHere]:
    """What of a chunk that was put together, at ``source``, goes to the areas of one set of pieces."""
    return [
        FromHere(source + part.start, memory, offset, part.row, part.rows, part.stride)
        for part in layout.parts
        for memory, offset in places_of(part, pieces, areas)
    ]


def places_of(part: Part, pieces: int, areas: Sequence[Lent]) -> Iterator[tuple[DeviceMemory, int]]:
    """Where a part goes in the areas of one set of pieces."""
    for place in part.places:
        if place.pieces == pieces:
            memory = areas[place.area]
            assert isinstance(memory, DeviceMemory)  # noqa: S101 - areas with bytes are of GPUs
            yield memory, place.offset


class Arrivals:
    """One process's; used by a thread for each other process."""

    def __init__(
        self,
        cuda: Cuda,
        device: int,
        manifest: Manifest,
        spread: SpreadMap,
        sets: Sequence[int],
        me: int,
        areas: Sequence[Lent],
        ring: Ring,
        direct: Direct,
    ) -> None:
        """``sets`` is, by process, the number of its set of pieces in ``spread``; this one's go to ``areas``."""
        self._driver = cuda.driver
        self._device = device
        self._manifest = manifest
        self._spread = spread
        self._sets = sets
        self._pieces = sets[me]
        self._areas = areas
        self._ring = ring
        self._direct = direct
        self._copies = Copies(cuda)
        self._lock = threading.Lock()
        self.by_ring = 0
        """Bytes that came out of shared memory."""
        self.by_gpus = 0
        """Bytes that came from other processes' GPUs."""

    def begin(self, process: int, chunk: int, number: int) -> list[int]:
        """Begin to copy what this process wants of a chunk; the events that ``finish`` waits for.

        Raises ``ValueError`` for a buffer that is none, ``Unreadable`` and ``GpuFailed``.
        """
        buffer = self._ring.address(process, number)
        where = self._manifest.chunk(chunk)
        layout = self._spread.layout(where.offset, where.offset + where.length)
        across: list[FromHere] = []
        inward: list[FromHere] = []
        for part in layout.parts:
            source = self._source(process, part)
            for memory, offset in places_of(part, self._pieces, self._areas):
                if source:  # there its rows lie end to end
                    across.append(FromHere(source, memory, offset, part.length))
                else:
                    inward.append(FromHere(buffer + part.start, memory, offset, part.row, part.rows, part.stride))
        events: list[int] = []
        try:
            if across:
                events.append(self._copies.begin(across, across=True))
            if inward:
                events.append(self._copies.begin(inward))
        except BaseException:
            self.forsake(events)
            raise
        with self._lock:
            self.by_gpus += sum(each.row for each in across)
            self.by_ring += sum(each.row * each.rows for each in inward)
        return events

    def finish(self, events: Sequence[int], check: Callable[[], None]) -> None:
        """Wait for what was begun; ``check`` is called meanwhile, and does not raise.

        Raises ``GpuFailed``, and ``StorageError`` where it does not end.
        """
        for number, event in enumerate(events):
            try:
                self._see_done(event, check)
            except BaseException:
                self.forsake(events[number + 1 :])
                raise

    def forsake(self, events: Sequence[int]) -> None:
        """Nobody waits for these; what they tell the end of goes on until ``close``."""
        for event in events:
            with contextlib.suppress(GpuFailed), self._driver.on(self._device):
                self._driver.end_event(event)

    def _source(self, process: int, part: Part) -> int:
        """Where the bringer itself has a part, for this GPU to read; 0 where it has not, or cannot be read."""
        for place in part.places:
            if place.pieces == self._sets[process]:
                return self._direct.source(process, place.area, place.offset)
        return 0

    def _see_done(self, event: int, check: Callable[[], None]) -> None:
        if not until_done(self._driver, self._device, event, time.monotonic() + COPY_SECONDS, check):
            self.forsake([event])
            detail = f"copies have not ended for {COPY_SECONDS:g} s; the stream that they wait for is still busy"
            raise StorageError(path=f"memory of GPU {self._device}", detail=detail)

    def forget(self, process: int) -> None:
        """Nothing more is copied that this one has brought."""
        self._direct.forget(process)

    def close(self) -> None:
        """Wait until nothing is copied any more."""
        self._copies.close()
        self._direct.close()
