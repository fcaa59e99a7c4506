"""A get of some tensors into files: as ``FileDestination``, but that what is made is no file of the object.

Of each chunk that comes, what is wanted lies together in one file, since tensors stay in their order. The chunk is
hashed whole; where only some of it is kept, that is hashed, too, and the journal notes its digest: a get that is
resumed can look at what it has, without the rest of the chunk.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable
from pathlib import Path

from engine.files.system import system
from engine.files.writing import write_at
from p2pstore.errors import SourceChanged
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.choices import DIGEST_BYTES
from p2pstore.objects.hashing import Hasher
from p2pstore.objects.manifest import Chunk, Manifest
from p2pstore.objects.steps import Steps
from p2pstore.pull.destination import Mismatch, RunSink
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.file_sink import PartialFormSink
from p2pstore.tensors.files import TensorFiles
from p2pstore.tensors.plan import Map, left_out


class TensorFileDestination(FileDestination):
    """A destination in the file system, for some tensors of an object."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        name: str,
        wanted: TensorFiles,
        *,
        force: bool = False,
        cancelled: threading.Event | None = None,
        check: Callable[[], None] | None = None,
        steps: Steps | None = None,
    ) -> None:
        """As ``FileDestination``."""
        self._wanted = wanted
        self._map = Map(wanted.pieces)
        super().__init__(
            path,
            manifest,
            name,
            force=force,
            cancelled=cancelled,
            check=check,
            steps=steps,
            shape=wanted.shape,
            note_bytes=DIGEST_BYTES[manifest.hash],
        )
        self.verified: Bitmap = left_out(manifest, wanted.pieces)
        self.left_out = manifest.bytes_of(self.verified)

    def _lay_out(self) -> None:
        super()._lay_out()
        for number, head in enumerate(self._wanted.heads):
            descriptor = self.files.borrow(number)
            try:
                if system.pread(descriptor, len(head), 0) != head:
                    self.files.before_write(number, descriptor)
                    write_at(descriptor, head, 0)
            finally:
                self.files.give_back(number)

    def hollow(self) -> set[int]:
        """See ``FileDestination.hollow``."""
        return set()

    def stored(self, number: int) -> Chunk:
        """See ``FileDestination.stored``. A digest that nobody has noted is empty, and fits nothing."""
        chunk = self.manifest.chunk(number)
        kept = [each for each in self._map.segments(chunk.offset, chunk.offset + chunk.length) if each.piece]
        first = kept[0].piece
        assert first is not None  # noqa: S101 - a chunk without any does not come
        at = first.to + kept[0].begin - first.source
        length = sum(each.end - each.begin for each in kept)
        digest = chunk.digest if length == chunk.length else self.journal.notes.get(number, b"")
        return Chunk(number, first.area, at, chunk.offset, length, digest)

    def chunks_in(self, file: int) -> Iterable[int]:
        """See ``FileDestination.chunks_in``."""
        pieces = self._wanted.pieces
        first = bisect_left(pieces, file, key=lambda piece: piece.area)
        last = bisect_left(pieces, file + 1, key=lambda piece: piece.area)
        numbers = {n for each in pieces[first:last] for n in self.manifest.chunks_of(each.source, each.row)}
        return sorted(numbers)

    def head_is_right(self, file: int, descriptor: int) -> bool:
        """See ``FileDestination.head_is_right``."""
        head = self._wanted.heads[file]
        return system.pread(descriptor, len(head), 0) == head

    def sink(self, run: range, scratch: memoryview) -> TensorFileSink:  # type: ignore[override] # a sink like any
        """See ``Destination.sink``."""
        return TensorFileSink(self, run, scratch)

    def segments(self, begin: int, end: int) -> Iterable[tuple[int, int, int, int]]:
        """What of a range of the object is wanted: from and to, counted from ``begin``, and the file and the place."""
        for each in self._map.segments(begin, end):
            if each.piece is not None:
                to = each.piece.to + each.begin - each.piece.source
                yield each.begin - begin, each.end - begin, each.piece.area, to

    def copy(self, chunk: Chunk, sink: RunSink) -> None:  # noqa: ARG002 - as the protocol has it
        """See ``Destination.copy``: a chunk is not kept as a whole."""
        raise SourceChanged(path=self.part, detail=f"chunk {chunk.number} is not kept as a whole")


class TensorFileSink(PartialFormSink):
    """Takes the bytes of adjacent chunks: hashes all, writes what is wanted, compares each digest. See ``RunSink``."""

    def __init__(self, destination: TensorFileDestination, run: range, scratch: memoryview) -> None:
        super().__init__(destination, run, scratch)
        self._destination = destination
        self._begin()

    def _begin(self) -> None:
        self._chunk = self._destination.manifest.chunk(self._run[self.kept])
        self._at = self._chunk.offset
        self._end = self._chunk.offset + self._chunk.length
        self._hashed: Hasher = self._destination.new_hasher()
        self._stored: Hasher = self._destination.new_hasher()
        self._partial = self._destination.stored(self._chunk.number).length < self._chunk.length

    def buffer(self, remaining: int) -> memoryview:
        """Room for what comes next of this chunk."""
        self._writers.check()
        return self._scratch[: min(len(self._scratch), remaining, self._end - self._at)]

    def filled(self, count: int) -> None:
        """Hash what arrived and write what is wanted of it. Raises ``Mismatch`` or ``StorageError``."""
        data = self._scratch[:count]
        self._hashed.update(data)
        for low, high, file, to in self._destination.segments(self._at, self._at + count):
            if self._partial:
                self._stored.update(data[low:high])
            self._write(data[low:high], file, to)
        self._at += count
        if self._at == self._end:
            if self._hashed.digest() != self._chunk.digest:
                raise Mismatch(self._chunk.number)
            if self._partial:
                self._destination.journal.notes[self._chunk.number] = self._stored.digest()
            self.kept += 1
            if self.kept < len(self._run):
                self._begin()
