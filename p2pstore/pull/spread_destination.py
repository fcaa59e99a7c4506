"""A get of pieces of an object into memory of GPUs: each chunk comes once, is hashed once, and is shared out.

What anybody wants of a chunk is put together in one pinned buffer while it comes. Once the chunk is right, that is
copied to who wants it; what several want goes to one of them, and on from there where GPUs reach one another.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

from engine.cuda.device_memory import DeviceMemory
from engine.cuda.load import ARRIVING_BYTES
from engine.cuda.pinned import PinnedBuffer
from engine.cuda.spread import Part, SpreadCopies, Target
from p2pstore.errors import UsageError
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import Lent, release
from p2pstore.pull.pieces_destination import PiecesDestination, PiecesSink
from p2pstore.tensors.plan import Piece, all_but, left_out, rows_of
from p2pstore.tensors.spread import Layout, SpreadMap, To


class PutTogether(PiecesDestination):
    """Where what several want of a chunk is put together, and then goes on to them."""

    map: SpreadMap

    @abstractmethod
    def stage(self, size: int, chunk: int) -> PinnedBuffer:
        """Room for so many bytes of a chunk; waits for it.

        Raises ``UsageError`` for too many, ``GpuFailed``, ``Interrupted``.
        """

    @abstractmethod
    def land(self, staged: PinnedBuffer, layout: Layout, chunk: int) -> None:
        """A chunk is right: let it go on. The room is no longer the caller's. Raises ``GpuFailed``."""

    def sink(self, run: range, scratch: memoryview) -> SpreadSink:
        """See ``Destination.sink``."""
        return SpreadSink(self, run, scratch)


class SpreadDestination(PutTogether):
    """Areas of GPUs' memory, and the pieces of an object that go there. In the end it lets go of them."""

    def __init__(
        self,
        manifest: Manifest,
        sets: Sequence[Sequence[Piece]],
        places: Sequence[Sequence[Sequence[Lent]]],
        chunks: Iterable[int] | None = None,
    ) -> None:
        """``sets`` are of pieces; ``places`` has for each of them the memory, area by area, of all who want it.

        Areas without bytes are of the host. ``chunks`` are those that are to come: by default all that have something
        of the pieces. Raises ``GpuFailed``.
        """
        pieces = (piece for pieces in sets for piece in pieces)
        super().__init__(manifest, left_out(manifest, pieces) if chunks is None else all_but(manifest, chunks))
        self.map = SpreadMap(sets)
        self._places = places
        memories = [area for areas in self._all() for area in areas if isinstance(area, DeviceMemory)]
        self._spread: SpreadCopies | None = None
        if memories:
            self._copies = self._spread = SpreadCopies(memories[0].cuda, [memory.device for memory in memories])

    def _all(self) -> list[Sequence[Lent]]:
        return [areas for several in self._places for areas in several]

    @property
    def spread(self) -> SpreadCopies:
        """The copies to the GPUs: there is memory of one."""
        assert self._spread is not None  # noqa: S101 - made with the memory
        return self._spread

    def targets(self, places: Sequence[To]) -> list[Target]:
        """The memory at places of the map."""
        found: list[Target] = []
        for place in places:
            for areas in self._places[place.pieces]:
                memory = areas[place.area]
                assert isinstance(memory, DeviceMemory)  # noqa: S101 - areas with bytes are of GPUs
                found.append((memory, place.offset))
        return found

    def stage(self, size: int, chunk: int) -> PinnedBuffer:  # noqa: ARG002 - all have the same room
        """See ``PutTogether.stage``."""
        if size > ARRIVING_BYTES:
            detail = f"ranks want {size} bytes of one chunk, more than may be pinned: by cut= their slices overlap"
            raise UsageError(detail=detail)
        return self.spread.take(size, self.spread.groups[0][0], self.writers.check)

    def land(self, staged: PinnedBuffer, layout: Layout, chunk: int) -> None:
        """See ``PutTogether.land``."""
        parts = [Part(part.start, part.row, self.targets(part.places), part.rows, part.stride) for part in layout.parts]
        self.spread.spread(staged, parts, chunk)

    def _let_go(self) -> None:
        super()._let_go()
        for areas in self._all():
            release(areas)


class SpreadSink(PiecesSink):
    """Takes the bytes of adjacent chunks, and shares out those that are right; see ``RunSink``."""

    def __init__(self, destination: PutTogether, run: range, scratch: memoryview) -> None:
        super().__init__(destination, run, scratch)
        self._destination = destination
        self._start()

    def _begin(self) -> None:
        self._open_chunk()
        self._layout = self._destination.map.layout(self._at, self._end)
        self._stretches = iter(self._layout.stretches)
        self._stretch = next(self._stretches)
        if self._layout.size:
            self._staged = self._destination.stage(self._layout.size, self._chunk.number)

    def buffer(self, remaining: int) -> memoryview:
        """Room for the next bytes: their place, or the thread's own buffer. It is taken back with the next one."""
        self._writers.check()
        self._take_back()
        if self._at == self._stretch.end:
            self._stretch = next(self._stretches)
        count = min(remaining, self._stretch.end - self._at)
        start = self._stretch.start
        if start is not None:
            assert self._staged is not None  # noqa: S101 - there is something to put together
            return self._in_place(self._staged.view, start + self._at - self._stretch.begin, count)
        return self._aside(count)

    def filled(self, count: int) -> None:
        """Hash what arrived, and copy what is wanted of rows. Raises ``Mismatch`` and ``GpuFailed``."""
        room = self._hash(count)
        for piece, shift in self._stretch.rows:
            assert self._staged is not None  # noqa: S101 - as above
            target = self._staged.view
            for low, high, to in rows_of(piece, self._at, self._at + count):
                target[to + shift : to + shift + high - low] = room[low:high]
        self._advance(count)

    def _land(self, staged: PinnedBuffer) -> None:
        self._destination.land(staged, self._layout, self._chunk.number)
