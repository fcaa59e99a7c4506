"""A get into memory: received in place, hashed where it lies.

The memory is the caller's, who may unmap it as soon as the get has returned. So every view of it that is handed out is
taken back: the destination is through when the last of them is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from engine.memory.file_spans import FileSpan
from engine.memory.lent import byte_view
from engine.memory.region import Region
from p2pstore.errors import StorageError, UsageError
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.file_list import FileEntry
from p2pstore.objects.hashing import hasher
from p2pstore.objects.manifest import Chunk, Manifest
from p2pstore.pull.destination import ABORT_SECONDS, Mismatch, RunSink
from p2pstore.pull.writers import Writers

if TYPE_CHECKING:
    from typing_extensions import Buffer


COPY_BYTES = 256 * 1024
"""Copied and hashed at once: what stays in a core's cache."""


class MemoryDestination:
    """Buffers of the caller's, one a file of the object. A single-file object takes one, under the name ``""``."""

    left_out = 0
    """See ``Destination.left_out``."""

    def __init__(self, manifest: Manifest, buffers: Mapping[str, Buffer]) -> None:
        """Raises ``UsageError`` unless every file has a writable buffer of just its size."""
        self.manifest = manifest
        self.verified = Bitmap(manifest.chunks)
        self.new_hasher = hasher(manifest.hash)
        wanted = {f.path: f.size for f in manifest.files}
        if set(wanted) != set(buffers):
            different = ", ".join(repr(path) for path in sorted(set(wanted) ^ set(buffers)))
            raise UsageError(detail=f"the buffers do not match the object's files: {different}")
        self.views: list[memoryview] = []
        self._regions: list[Region] = []
        self.writers = Writers(self._let_go)
        try:
            for file in manifest.files:
                self._borrow(file, buffers[file.path])
        except BaseException:
            self._let_go()
            raise

    def _borrow(self, file: FileEntry, buffer: Buffer) -> None:
        view = byte_view(buffer, f"buffer {file.path!r}", writable=True)
        self.views.append(view)
        if len(view) != file.size:
            raise UsageError(detail=f"buffer {file.path!r} has {len(view)} bytes, the object has {file.size}")
        self._regions.append(Region.of(view))

    def sink(self, run: range, scratch: memoryview) -> MemorySink:  # noqa: ARG002 - nothing is received elsewhere
        """See ``Destination.sink``."""
        return MemorySink(self, run)

    def place(self, run: range) -> Region | None:
        """See ``Destination.place``: where the run lies in one file."""
        first, last = self.manifest.chunk(run[0]), self.manifest.chunk(run[-1])
        if first.file != last.file:
            return None
        self.writers.enter()
        length = last.file_offset + last.length - first.file_offset
        return self._regions[first.file].part(first.file_offset, length, self.writers.leave)

    def copy(self, chunk: Chunk, sink: RunSink) -> None:
        """See ``Destination.copy``."""
        with self.views[chunk.file][chunk.file_offset : chunk.file_offset + chunk.length] as source:
            done = 0
            while done < chunk.length:
                room = sink.buffer(min(COPY_BYTES, chunk.length - done))
                with source[done : done + len(room)] as piece:
                    room[:] = piece
                done += len(room)
                sink.filled(len(room))

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
        """Nobody writes any more: the memory is the caller's alone."""
        for region in self._regions:
            region.close()
        for view in self.views:
            view.release()


class MemorySink:
    """Takes the bytes of adjacent chunks into place; see ``RunSink``."""

    def __init__(self, destination: MemoryDestination, run: range) -> None:
        self.kept = 0
        self._destination = destination
        self._writers = destination.writers
        self._run = run
        self._room: memoryview | None = None
        self._begin()
        self._writers.enter()
        self._open = True

    def _begin(self) -> None:
        chunk = self._chunk = self._destination.manifest.chunk(self._run[self.kept])
        self._view = self._destination.views[chunk.file]
        self._at = chunk.file_offset
        self._end = chunk.file_offset + chunk.length
        self._hashed = self._destination.new_hasher()

    def buffer(self, remaining: int) -> memoryview:
        """Room for the rest of the chunk; it is taken back with the next one, or when the sink is closed."""
        self._writers.check()
        if self._room is not None:
            self._room.release()
        self._room = room = self._view[self._at : min(self._end, self._at + remaining)]
        return room

    def filled(self, count: int) -> None:
        """Hash what arrived. Raises ``Mismatch``."""
        assert self._room is not None  # noqa: S101 - there was a buffer to fill
        self._hashed.update(self._room if count == len(self._room) else self._room[:count])
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
            if self._room is not None:
                self._room.release()
            self._writers.leave()
