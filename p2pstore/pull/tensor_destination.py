"""A get of pieces of an object into areas of memory: chunks are hashed whole, and what is wanted of them is kept.

What goes to one place is received there. What lies between is received into the thread's own buffer, hashed and
forgotten; rows of a tensor of which each rank has a part are copied out of it. Memory of GPUs has a destination of its
own (``spread_destination``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import release
from p2pstore.pull.pieces_destination import PiecesDestination, PiecesSink
from p2pstore.tensors.plan import Map, Piece, all_but, left_out, rows_of


class TensorDestination(PiecesDestination):
    """Areas of memory, flat and writable, and the pieces of an object that go there. In the end it lets go of them."""

    def __init__(
        self,
        manifest: Manifest,
        pieces: Sequence[Piece],
        areas: Sequence[memoryview],
        chunks: Iterable[int] | None = None,
    ) -> None:
        """``chunks`` are those that are to come: by default all that have something of the pieces."""
        super().__init__(manifest, left_out(manifest, pieces) if chunks is None else all_but(manifest, chunks))
        self.areas = areas
        self.map = Map(pieces)

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
        self._start()

    def _begin(self) -> None:
        self._open_chunk()
        self._segments = self._destination.map.segments(self._at, self._end)
        self._segment = next(self._segments)

    def buffer(self, remaining: int) -> memoryview:
        """Room for the next bytes: their place, or the thread's own buffer. It is taken back with the next one."""
        self._writers.check()
        self._take_back()
        if self._at == self._segment.end:
            self._segment = next(self._segments)
        count = min(remaining, self._segment.end - self._at)
        piece = self._segment.piece
        if piece is not None and piece.rows == 1:
            return self._in_place(self._destination.areas[piece.area], piece.to + self._at - piece.source, count)
        return self._aside(count)

    def filled(self, count: int) -> None:
        """Hash what arrived, and copy what is wanted of rows. Raises ``Mismatch``."""
        room = self._hash(count)
        piece = self._segment.piece
        if piece is not None and piece.rows > 1:
            target = self._destination.areas[piece.area]
            for low, high, to in rows_of(piece, self._at, self._at + count):
                target[to : to + high - low] = room[low:high]
        self._advance(count)
