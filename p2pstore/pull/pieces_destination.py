"""What gets of pieces of an object into memory share: chunks are hashed whole, and none is kept as a whole."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from engine.memory.region import Region
from p2pstore.errors import SourceChanged
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.hashing import hasher
from p2pstore.objects.manifest import Chunk, Manifest
from p2pstore.pull.destination import Destination, RunSink
from p2pstore.pull.memory_destination import STAGED_BYTES, ChunksSink, MemoryWrites
from p2pstore.tensors.plan import Piece


class PiecesDestination(MemoryWrites):
    """Memory that pieces of an object go to. What lies between them is hashed and forgotten."""

    def __init__(self, manifest: Manifest, verified: Bitmap) -> None:
        """``verified`` are the chunks of which nothing is wanted."""
        super().__init__()
        self.manifest = manifest
        self.verified = verified
        self.left_out = manifest.bytes_of(verified)
        self.new_hasher = hasher(manifest.hash)

    @abstractmethod
    def sink(self, run: range, scratch: memoryview) -> RunSink:
        """See ``Destination.sink``."""

    def place(self, run: range) -> Region | None:  # noqa: ARG002 - few runs go to one place from end to end
        """See ``Destination.place``."""
        return None

    def copy(self, chunk: Chunk, sink: RunSink) -> None:  # noqa: ARG002 - as the protocol has it
        """See ``Destination.copy``: a chunk is not kept as a whole."""
        raise SourceChanged(path="memory", detail=f"chunk {chunk.number} is not kept as a whole")


class PiecesSink(ChunksSink):
    """What takes the bytes of adjacent chunks: to their place, or to the thread's own buffer, where they are forgotten.

    A subclass opens each chunk with ``_open_chunk``, and hands out ``_in_place`` or ``_aside``.
    """

    def __init__(self, destination: PiecesDestination, run: range, scratch: memoryview) -> None:
        super().__init__(destination, run)
        self._pieces = destination
        self._scratch = scratch

    def _open_chunk(self) -> None:
        chunk = self._chunk = self._pieces.manifest.chunk(self._run[self.kept])
        self._at = chunk.offset
        self._end = chunk.offset + chunk.length
        self._hashed = self._pieces.new_hasher()

    def _in_place(self, target: memoryview, begin: int, count: int) -> memoryview:
        """Room for the next bytes at their place in memory, which may be pinned."""
        self._room = room = target[begin : begin + (min(count, STAGED_BYTES) if self._staged is not None else count)]
        return room

    def _aside(self, count: int) -> memoryview:
        """Room for the next bytes in the thread's own buffer."""
        self._room = room = self._scratch[: min(count, len(self._scratch))]
        return room


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
