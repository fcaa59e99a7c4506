"""A get into memory: of the host, received in place and hashed where it lies; of GPUs, by way of pinned memory.

A chunk for a GPU is received into a pinned buffer, and hashed there; only when it is right is it copied to the GPU,
while the next one is received. No more of it is ever on the host than lies in those buffers.

The memory is the caller's, who may unmap it as soon as the get has returned. So every view of it that is handed out is
taken back, and every copy waited for: the destination is through when the last of them is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from engine.cuda.copies import Copies, FromHere
from engine.cuda.device_memory import DeviceMemory
from engine.cuda.pinned import PinnedBuffer
from engine.memory.copying import address_of
from engine.memory.file_spans import FileSpan
from engine.memory.lent import byte_view
from engine.memory.region import Region
from p2pstore.errors import StorageError, UsageError
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.file_list import FileEntry
from p2pstore.objects.hashing import Hasher, hasher
from p2pstore.objects.manifest import Chunk, Manifest
from p2pstore.objects.memory_objects import Lent, release
from p2pstore.pull.destination import ABORT_SECONDS, Mismatch, RunSink
from p2pstore.pull.tuning import Place
from p2pstore.pull.writers import Writers

if TYPE_CHECKING:
    from typing_extensions import Buffer


COPY_BYTES = 256 * 1024
"""Copied and hashed at once: what stays in a core's cache."""

STAGED_BYTES = 4 * 1024 * 1024
"""Received into pinned memory and hashed at once: with less, threads are woken more often than the cache saves."""

COPY_SECONDS = 60.0
"""For copies to GPUs to end when all has come. They come after what the caller's streams had to do before."""


class MemoryWrites:
    """What destinations in memory share: how the writes to it end, and the copies of those that are of GPUs."""

    def __init__(self) -> None:
        self.writers = Writers(self._let_go)
        self._copies: Copies | None = None

    @property
    def copies(self) -> Copies:
        """Those to GPUs: there is memory of one."""
        assert self._copies is not None  # noqa: S101 - made with the first such memory
        return self._copies

    @property
    def lands_in(self) -> Place:
        """See ``Destination.lands_in``."""
        return Place.HOST if self._copies is None else Place.GPU

    def keep(self, run: range) -> None:
        """Nothing to remember: memory does not outlive the process."""

    def finish(self) -> Sequence[FileSpan]:
        """See ``Destination.finish``. Raises ``StorageError`` where something is still being written, ``GpuFailed``."""
        if not self.writers.stop(ABORT_SECONDS):
            raise StorageError(path="memory", detail=f"a write has not ended for {ABORT_SECONDS:g} s")
        if self._copies is not None and not self._copies.settle(COPY_SECONDS):
            detail = f"copies have not ended for {COPY_SECONDS:g} s; the stream that they wait for is still busy"
            raise StorageError(path="memory of a GPU", detail=detail)
        self.writers.end(0)
        return ()

    def abort(self, timeout: float = ABORT_SECONDS) -> bool:
        """See ``Destination.abort``."""
        return self.writers.end(timeout)

    def _let_go(self) -> None:
        """Nobody writes any more: the memory is the caller's alone."""
        if self._copies is not None:
            self._copies.close()


class MemoryDestination(MemoryWrites):
    """Buffers of the caller's, one a file of the object. A single-file object takes one, under the name ``""``."""

    left_out = 0
    """See ``Destination.left_out``."""

    def __init__(self, manifest: Manifest, buffers: Mapping[str, Buffer | DeviceMemory]) -> None:
        """Raises ``UsageError`` unless every file has a writable buffer of just its size."""
        super().__init__()
        self.manifest = manifest
        self.verified = Bitmap(manifest.chunks)
        self.new_hasher = hasher(manifest.hash)
        wanted = {f.path: f.size for f in manifest.files}
        if set(wanted) != set(buffers):
            different = ", ".join(repr(path) for path in sorted(set(wanted) ^ set(buffers)))
            raise UsageError(detail=f"the buffers do not match the object's files: {different}")
        self.rooms: list[Lent] = []
        """The memory of each file."""
        self._regions: list[Region | None] = []  # of those of the host
        try:
            for file in manifest.files:
                self._borrow(file, buffers[file.path])
        except BaseException:
            self._let_go()
            raise

    def _borrow(self, file: FileEntry, buffer: Buffer | DeviceMemory) -> None:
        what = f"buffer {file.path!r}"
        room = buffer[:] if isinstance(buffer, DeviceMemory) else byte_view(buffer, what, writable=True)
        self.rooms.append(room)
        if len(room) != file.size:
            raise UsageError(detail=f"{what} has {len(room)} bytes, the object has {file.size}")
        if isinstance(room, memoryview):
            self._regions.append(Region.of(room))
            return
        self._regions.append(None)
        if self._copies is None:
            self._copies = Copies(room.cuda)

    def sink(self, run: range, scratch: memoryview) -> MemorySink:  # noqa: ARG002 - nothing is received elsewhere
        """See ``Destination.sink``."""
        return MemorySink(self, run)

    def place(self, run: range) -> Region | None:
        """See ``Destination.place``: where the run lies in one file, in the host's memory."""
        first, last = self.manifest.chunk(run[0]), self.manifest.chunk(run[-1])
        region = self._regions[first.file]
        if first.file != last.file or region is None:
            return None
        self.writers.enter()
        length = last.file_offset + last.length - first.file_offset
        return region.part(first.file_offset, length, self.writers.leave)

    def copy(self, chunk: Chunk, sink: RunSink) -> None:
        """See ``Destination.copy``."""
        room = self.rooms[chunk.file]
        if isinstance(room, DeviceMemory):
            self._copy_back(room, chunk, sink)
            return
        with room[chunk.file_offset : chunk.file_offset + chunk.length] as source:
            done = 0
            while done < chunk.length:
                room = sink.buffer(min(COPY_BYTES, chunk.length - done))
                with source[done : done + len(room)] as piece:
                    room[:] = piece
                done += len(room)
                sink.filled(len(room))

    def _copy_back(self, memory: DeviceMemory, chunk: Chunk, sink: RunSink) -> None:
        """As ``copy``, from a GPU."""
        done = 0
        while done < chunk.length:
            room = sink.buffer(min(STAGED_BYTES, chunk.length - done))
            self.copies.fetch(memory, chunk.file_offset + done, address_of(room), len(room), self.writers.check)
            done += len(room)
            sink.filled(len(room))

    def _let_go(self) -> None:
        super()._let_go()
        for region in self._regions:
            if region is not None:
                region.close()
        release(self.rooms)


class ChunksSink(ABC):
    """What sinks into memory share: chunks are hashed as they come, and those for a GPU go on to it once right.

    A subclass calls ``_start`` when it is made, and hands out ``_room``.
    """

    _chunk: Chunk
    _at: int
    _end: int
    _hashed: Hasher

    def __init__(self, writes: MemoryWrites, run: range) -> None:
        self.kept = 0
        self._writes = writes
        self._writers = writes.writers
        self._run = run
        self._room: memoryview | None = None
        self._staged: PinnedBuffer | None = None
        self._open = False

    def _start(self) -> None:
        self._writers.enter()
        self._open = True
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _begin(self) -> None:
        """Set out for the next chunk: ``_chunk``, ``_hashed``, from ``_at`` to ``_end``; ``_staged`` for a GPU."""

    def _land(self, staged: PinnedBuffer) -> None:  # noqa: B027 - who stages nothing lands nothing
        """Copy to its GPU what is in pinned memory of a chunk that is right."""

    def _hash(self, count: int) -> memoryview:
        """Hash what arrived, and return the room that it is in."""
        assert self._room is not None  # noqa: S101 - there was a buffer to fill
        self._hashed.update(self._room if count == len(self._room) else self._room[:count])
        return self._room

    def _advance(self, count: int) -> None:
        self._at += count
        if self._at == self._end:
            if self._hashed.digest() != self._chunk.digest:
                raise Mismatch(self._chunk.number)
            staged, self._staged = self._staged, None
            if staged is not None:
                self._land(staged)
            self.kept += 1
            if self.kept < len(self._run):
                self._begin()

    def _take_back(self) -> None:
        """Nobody is to write to the room any more that was handed out."""
        if self._room is not None:
            self._room.release()

    def close(self) -> None:
        """Let go of the memory. Twice is harmless."""
        if self._open:
            self._open = False
            self._take_back()
            staged, self._staged = self._staged, None
            if staged is not None:
                self._writes.copies.give(staged)
            self._writers.leave()


class MemorySink(ChunksSink):
    """Takes the bytes of adjacent chunks into place; see ``RunSink``."""

    def __init__(self, destination: MemoryDestination, run: range) -> None:
        super().__init__(destination, run)
        self._destination = destination
        self._start()

    def _begin(self) -> None:
        chunk = self._chunk = self._destination.manifest.chunk(self._run[self.kept])
        room = self._destination.rooms[chunk.file]
        if isinstance(room, DeviceMemory):
            self._staged = self._destination.copies.take(chunk.length, room.device, self._writers.check)
            self._view, self._at, self._most = self._staged.view, 0, STAGED_BYTES
        else:
            self._view, self._at, self._most = room, chunk.file_offset, chunk.length
        self._end = self._at + chunk.length
        self._hashed = self._destination.new_hasher()

    def buffer(self, remaining: int) -> memoryview:
        """Room for the rest of the chunk; it is taken back with the next one, or when the sink is closed."""
        self._writers.check()
        self._take_back()
        self._room = room = self._view[self._at : min(self._end, self._at + min(remaining, self._most))]
        return room

    def filled(self, count: int) -> None:
        """Hash what arrived, and let it go on to a GPU once a chunk is right. Raises ``Mismatch``, ``GpuFailed``."""
        self._hash(count)
        self._advance(count)

    def _land(self, staged: PinnedBuffer) -> None:
        memory = self._destination.rooms[self._chunk.file]
        assert isinstance(memory, DeviceMemory)  # noqa: S101 - what is staged goes to one
        part = FromHere(staged.address, memory, self._chunk.file_offset, self._chunk.length)
        self._destination.copies.put(staged, [part])
