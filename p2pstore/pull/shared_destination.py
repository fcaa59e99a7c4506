"""What one of several processes of a host brings for all: into buffers that all can read, and its own GPU's memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from engine.cuda.copies import Copies
from engine.cuda.load import Cuda
from engine.cuda.pinned import PinnedBuffer
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import Lent
from p2pstore.pull.spread_destination import PutTogether
from p2pstore.sharing.arrivals import mine
from p2pstore.sharing.ring import Ring
from p2pstore.tensors.plan import all_but
from p2pstore.tensors.spread import Layout, SpreadMap


class Offers(Protocol):
    """Who tells the others."""

    def check(self) -> None:
        """Raise what went wrong with the sharing."""

    def brought(self, chunk: int, buffer: PinnedBuffer, event: int) -> None:
        """A chunk is right, and here once ``event`` is done."""


class _RingCopies(Copies):
    """Copies from buffers of the ring, and others."""

    def __init__(self, cuda: Cuda, ring: Ring) -> None:
        super().__init__(cuda)
        self._ring = ring

    def give(self, buffer: PinnedBuffer) -> None:
        """Nothing is in it."""
        if self._ring.has(buffer):
            self._ring.give(buffer)
        else:
            super().give(buffer)


class SharedDestination(PutTogether):
    """Chunks that are to be brought by this process, and areas of its memory, which stay the caller's."""

    def __init__(
        self,
        manifest: Manifest,
        chunks: Collection[int],
        shared: Collection[int],
        spread: SpreadMap,
        pieces: int,
        areas: Sequence[Lent],
        cuda: Cuda,
        ring: Ring,
        offers: Offers,
    ) -> None:
        """``pieces`` is the number of this process's set in ``spread``, which go to ``areas``.

        Of the ``chunks`` others want those that are ``shared``; the rest takes no room in the ring.
        """
        super().__init__(manifest, all_but(manifest, chunks))
        self._shared = frozenset(shared)
        self.map = spread
        self._pieces = pieces
        self._areas = areas
        self._ring = ring
        self._offers = offers
        self._copies = _RingCopies(cuda, ring)

    def stage(self, size: int, chunk: int) -> PinnedBuffer:
        """See ``PutTogether.stage``."""
        if chunk not in self._shared:
            return self.copies.take(size, self._ring.device, self._check)
        assert size <= self._ring.buffer_bytes  # noqa: S101 - larger ones are not shared
        return self._ring.take(self._check)

    def land(self, staged: PinnedBuffer, layout: Layout, chunk: int) -> None:
        """See ``PutTogether.land``."""
        parts = mine(layout, staged.address, self._pieces, self._areas)
        if chunk in self._shared:
            self._offers.brought(chunk, staged, self.copies.begin(parts))
        else:
            self.copies.put(staged, parts)

    def _check(self) -> None:
        self.writers.check()
        self._offers.check()
