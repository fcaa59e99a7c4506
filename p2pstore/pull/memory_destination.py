"""A get into memory: received in place, hashed where it lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from p2pstore.errors import UsageError
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.hashing import hasher
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import byte_view
from p2pstore.pull.destination import Mismatch

if TYPE_CHECKING:
    from typing_extensions import Buffer


class MemoryDestination:
    """Buffers of the caller's, one a file of the object. A single-file object takes one, under the name ``""``."""

    def __init__(self, manifest: Manifest, buffers: Mapping[str, Buffer]) -> None:
        """Raises ``UsageError`` unless every file has a writable buffer of just its size."""
        self.manifest = manifest
        self.verified = Bitmap(manifest.chunks)
        self.new_hasher = hasher(manifest.hash)
        wanted = {f.path: f.size for f in manifest.files}
        if set(wanted) != set(buffers):
            missing = ", ".join(sorted(set(wanted) ^ set(buffers)))
            raise UsageError(detail=f"the buffers do not match the object's files: {missing}")
        self.views: list[memoryview] = []
        for file in manifest.files:
            view = byte_view(buffers[file.path], f"buffer {file.path!r}", writable=True)
            if len(view) != file.size:
                raise UsageError(detail=f"buffer {file.path!r} has {len(view)} bytes, the object has {file.size}")
            self.views.append(view)

    def sink(self, run: range, scratch: memoryview) -> MemorySink:  # noqa: ARG002 - nothing is received elsewhere
        """A sink for the adjacent chunks of ``run``."""
        return MemorySink(self, run)

    def place(self, run: range) -> memoryview | None:
        """See ``pull.Destination.place``: where the run lies in one file."""
        first, last = self.manifest.chunk(run[0]), self.manifest.chunk(run[-1])
        if first.file != last.file:
            return None
        return self.views[first.file][first.file_offset : last.file_offset + last.length]

    def keep(self, run: range) -> None:
        """Nothing to remember: memory does not outlive the process."""


class MemorySink:
    """Takes the bytes of adjacent chunks into place; see ``RunSink``."""

    def __init__(self, destination: MemoryDestination, run: range) -> None:
        self.kept = 0
        self._destination = destination
        self._run = run
        self._begin()

    def _begin(self) -> None:
        self._chunk = self._destination.manifest.chunk(self._run[self.kept])
        start = self._chunk.file_offset
        self._left = self._destination.views[self._chunk.file][start : start + self._chunk.length]
        self._hashed = self._destination.new_hasher()

    def buffer(self, remaining: int) -> memoryview:
        """Room for the rest of the chunk."""
        return self._left[:remaining]

    def filled(self, count: int) -> None:
        """Hash what arrived. Raises ``Mismatch``."""
        self._hashed.update(self._left[:count])
        self._left = self._left[count:]
        if not len(self._left):
            if self._hashed.digest() != self._chunk.digest:
                raise Mismatch(self._chunk.number)
            self.kept += 1
            if self.kept < len(self._run):
                self._begin()

    def close(self) -> None:
        """Let go of the memory."""
        self._left.release()
