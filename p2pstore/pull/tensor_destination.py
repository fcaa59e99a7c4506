"""A get of pieces of an object into areas of memory: chunks are hashed whole, and what is wanted of them is kept.

What goes to one place is received there. What lies between is received into the thread's own buffer, hashed and
forgotten; rows of a tensor of which each rank has a part are copied out of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from engine.memory.file_spans import FileSpan
from engine.memory.region import Region
from p2pstore.errors import SourceChanged, StorageError
from p2pstore.objects.hashing import hasher
from p2pstore.objects.manifest import Chunk, Manifest
from p2pstore.pull.destination import ABORT_SECONDS, Destination, Mismatch, RunSink
from p2pstore.pull.writers import Writers
from p2pstore.tensors.plan import Map, Piece, all_but, left_out, rows_of


class TensorDestination:
    """Areas of memory, flat and writable, and the pieces of an object that go there. In the end it lets go of them."""

    def __init__(
        self,
        manifest: Manifest,
        pieces: Sequence[Piece],
        areas: Sequence[memoryview],
        chunks: Iterable[int] | None = None,
    ) -> None:
        """``chunks`` are those that are to come: by default all that have something of the pieces."""
        self.manifest = manifest
        self.verified = left_out(manifest, pieces) if chunks is None else all_but(manifest, chunks)
        self.left_out = manifest.bytes_of(self.verified)
        self.new_hasher = hasher(manifest.hash)
        self.areas = areas
        self.map = Map(pieces)
        self.writers = Writers(self._let_go)

    def sink(self, run: range, scratch: memoryview) -> TensorSink:
        """See ``Destination.sink``."""
        return TensorSink(self, run, scratch)

    def place(self, run: range) -> Region | None:  # noqa: ARG002 - few runs go to one place from end to end
        """See ``Destination.place``."""
        return None

    def copy(self, chunk: Chunk, sink: RunSink) -> None:  # noqa: ARG002 - as the protocol has it
        """See ``Destination.copy``: a chunk is not kept as a whole."""
        raise SourceChanged(path="memory", detail=f"chunk {chunk.number} is not kept as a whole")

    def take(self, chunks: Mapping[int, memoryview], scratch: memoryview) -> int:
        """See ``take``."""
        return take(self, chunks, scratch)

    def keep(self, run: range) -> None:
        """Nothing to remember: memory does not outlive the process."""

    def finish(self) -> Sequence[FileSpan]:
        """See ``Destination.finish``. Raises ``StorageError`` where something is still being written."""
        if not self.writers.stop(ABORT_SECONDS):
            raise StorageError(path="memory", detail=f"a write has not ended for {ABORT_SECONDS:g} s")
        self.writers.end(0)
        return ()

    def abort(self, timeout: float = ABORT_SECONDS) -> bool:
        """See ``Destination.abort``."""
        return self.writers.end(timeout)

    def _let_go(self) -> None:
        for area in self.areas:
            area.release()


class TensorSink:
    """Takes the bytes of adjacent chunks to where they are wanted; see ``RunSink``."""

    def __init__(self, destination: TensorDestination, run: range, scratch: memoryview) -> None:
        self.kept = 0
        self._destination = destination
        self._writers = destination.writers
        self._run = run
        self._scratch = scratch
        self._room = scratch[:0]
        self._begin()
        self._writers.enter()
        self._open = True

    def _begin(self) -> None:
        chunk = self._chunk = self._destination.manifest.chunk(self._run[self.kept])
        self._at = chunk.offset
        self._end = chunk.offset + chunk.length
        self._segments = self._destination.map.segments(self._at, self._end)
        self._segment = next(self._segments)
        self._hashed = self._destination.new_hasher()

    def buffer(self, remaining: int) -> memoryview:
        """Room for the next bytes: their place, or the thread's own buffer. It is taken back with the next one."""
        self._writers.check()
        self._room.release()
        if self._at == self._segment.end:
            self._segment = next(self._segments)
        count = min(remaining, self._segment.end - self._at)
        piece = self._segment.piece
        if piece is not None and piece.rows == 1:
            begin = piece.to + self._at - piece.source
            self._room = self._destination.areas[piece.area][begin : begin + count]
        else:
            self._room = self._scratch[: min(count, len(self._scratch))]
        return self._room

    def filled(self, count: int) -> None:
        """Hash what arrived, and copy what is wanted of rows. Raises ``Mismatch``."""
        self._hashed.update(self._room if count == len(self._room) else self._room[:count])
        piece = self._segment.piece
        if piece is not None and piece.rows > 1:
            area = self._destination.areas[piece.area]
            for low, high, to in rows_of(piece, self._at, self._at + count):
                area[to : to + high - low] = self._room[low:high]
        self._at += count
        if self._at == self._end:
            if self._hashed.digest() != self._chunk.digest:
                raise Mismatch(self._chunk.number)
            self.kept += 1
            if self.kept < len(self._run):
                self._begin()

    def close(self) -> None:
        """Let go of the memory. Twice is harmless."""
        if self._open:
            self._open = False
            self._room.release()
            self._writers.leave()


def whole_chunks(manifest: Manifest, numbers: Sequence[int]) -> list[Piece]:
    """Pieces that bring these chunks, in ascending order, each into an area of its own."""
    found = []
    for area, number in enumerate(numbers):
        chunk = manifest.chunk(number)
        found.append(Piece(chunk.offset, chunk.length, chunk.length, 1, area, 0))
    return found


def take(destination: Destination, chunks: Mapping[int, memoryview], scratch: memoryview) -> int:
    """Give a destination those chunks that it lacks, which were brought before; how many bytes of them."""
    count = 0
    for number, data in chunks.items():
        if number in destination.verified:
            continue
        run = range(number, number + 1)
        sink = destination.sink(run, scratch)
        try:
            done = 0
            while done < len(data):
                room = sink.buffer(len(data) - done)
                room[:] = data[done : done + len(room)]
                done += len(room)
                sink.filled(len(room))
        finally:
            sink.close()
        destination.keep(run)
        destination.verified.add(number)
        count += len(data)
    return count
