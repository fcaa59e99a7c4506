"""A get of pieces of an object into areas of memory: chunks are hashed whole, and what is wanted of them is kept.

What goes to one place is received there. What lies between is received into the thread's own buffer, hashed and
forgotten; rows of a tensor of which each rank has a part are copied out of it. For memory of a GPU a pinned buffer is
filled in this way, with what the chunk has for it, and copied once the chunk is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.cuda.copies import Copies
from engine.cuda.device_memory import DeviceMemory
from engine.cuda.pinned import PinnedBuffer
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import Lent, release
from p2pstore.pull.pieces_destination import PiecesDestination, PiecesSink
from p2pstore.tensors.plan import Map, Piece, all_but, left_out, rows_of


class TensorDestination(PiecesDestination):
    """Areas of memory, flat and writable, and the pieces of an object that go there. In the end it lets go of them."""

    def __init__(
        self,
        manifest: Manifest,
        pieces: Sequence[Piece],
        areas: Sequence[Lent],
        chunks: Iterable[int] | None = None,
    ) -> None:
        """``chunks`` are those that are to come: by default all that have something of the pieces."""
        super().__init__(manifest, left_out(manifest, pieces) if chunks is None else all_but(manifest, chunks))
        self.areas = areas
        self.map = Map(pieces)
        gpu = next((area for area in areas if isinstance(area, DeviceMemory)), None)
        self._copies = Copies(gpu.cuda) if gpu is not None else None

    @property
    def on_gpu(self) -> bool:
        """Whether what is wanted goes to a GPU."""
        return self._copies is not None

    def sink(self, run: range, scratch: memoryview) -> TensorSink:
        """See ``Destination.sink``."""
        return TensorSink(self, run, scratch)

    def _let_go(self) -> None:
        super()._let_go()
        release(self.areas)


class TensorSink(PiecesSink):
    """Takes the bytes of adjacent chunks to where they are wanted; see ``RunSink``."""

    def __init__(self, destination: TensorDestination, run: range, scratch: memoryview) -> None:
        super().__init__(destination, run, scratch)
        self._destination = destination
        self._parts: list[tuple[int, DeviceMemory, int, int]] = []
        self._shifts: dict[int, int] = {}
        self._start()

    def _begin(self) -> None:
        self._open_chunk()
        self._segments = self._destination.map.segments(self._at, self._end)
        self._segment = next(self._segments)
        if self._destination.on_gpu:
            self._stage()

    def _stage(self) -> None:
        """Have pinned memory for what the chunk has for a GPU, area by area."""
        self._parts, self._shifts, at = [], {}, 0
        for number, low, high in self._destination.map.reaches(self._at, self._end):
            area = self._destination.areas[number]
            assert isinstance(area, DeviceMemory)  # noqa: S101 - of one framework, which has all of it on one GPU
            self._parts.append((at, area, low, high - low))
            self._shifts[number] = at - low
            at += high - low
        if self._parts:
            device = self._parts[0][1].device
            self._staged = self._destination.copies.take(at, device, self._writers.check)

    def _target(self, piece: Piece) -> tuple[memoryview, int]:
        """The memory into which a piece is received, and what is added to a place for its place there."""
        if self._staged is not None:
            return self._staged.view, self._shifts[piece.area]
        area = self._destination.areas[piece.area]
        assert isinstance(area, memoryview)  # noqa: S101 - what goes to a GPU is staged
        return area, 0

    def buffer(self, remaining: int) -> memoryview:
        """Room for the next bytes: their place, or the thread's own buffer. It is taken back with the next one."""
        self._writers.check()
        self._take_back()
        if self._at == self._segment.end:
            self._segment = next(self._segments)
        count = min(remaining, self._segment.end - self._at)
        piece = self._segment.piece
        if piece is not None and piece.rows == 1:
            target, shift = self._target(piece)
            return self._in_place(target, piece.to + self._at - piece.source + shift, count)
        return self._aside(count)

    def filled(self, count: int) -> None:
        """Hash what arrived, and copy what is wanted of rows. Raises ``Mismatch``."""
        room = self._hash(count)
        piece = self._segment.piece
        if piece is not None and piece.rows > 1:
            for low, high, to in rows_of(piece, self._at, self._at + count):
                target, shift = self._target(piece)
                target[to + shift : to + shift + high - low] = room[low:high]
        self._advance(count)

    def _land(self, staged: PinnedBuffer) -> None:
        self._destination.copies.put_parts(staged, self._parts)
