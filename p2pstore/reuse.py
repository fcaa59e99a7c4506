"""What of an object this node already has, in any of its holdings, chunk by chunk: equal hashes are equal chunks."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.errors import SourceChanged
from engine.transports.base import CloningSink, Sink
from p2pstore.destination import FileDestination, Mismatch
from p2pstore.errors import Interrupted
from p2pstore.manifest import Chunk, Manifest
from p2pstore.memory_destination import MemoryDestination
from p2pstore.pull import SCRATCH_BYTES

if TYPE_CHECKING:
    from p2pstore.holdings import Holdings

log = logging.getLogger(__name__)


class LocalChunks:
    """An index from digests to a place in a served buffer. Holdings hashed another way, or cut differently, miss."""

    def __init__(self, holdings: Holdings, manifest: Manifest) -> None:
        wanted = {digest for file in manifest.files for digest in file.chunks}
        self._places: dict[tuple[bytes, int], tuple[str, int]] = {}
        self._holdings = holdings
        for digest, replica in list(holdings.replicas.items()):
            if digest == manifest.digest and not replica.have.full:
                continue  # the very get that asks
            theirs = replica.manifest
            if theirs.hash == manifest.hash:
                for chunk in theirs.all_chunks():
                    if chunk.digest in wanted and chunk.number in replica.have:
                        self._places[chunk.digest, chunk.length] = (digest, chunk.offset)

    def __bool__(self) -> bool:
        return bool(self._places)

    def has(self, chunk: Chunk) -> bool:
        """Whether an equal chunk is somewhere here."""
        return (chunk.digest, chunk.length) in self._places

    def read(self, chunk: Chunk, sink: Sink) -> None:
        """Bring the chunk into ``sink``. Raises ``SourceChanged`` where it is gone, and what the sink raises."""
        digest, offset = self._places[chunk.digest, chunk.length]
        done = self._clone(digest, offset, chunk.length, sink) if isinstance(sink, CloningSink) else 0
        while done < chunk.length:
            view = sink.buffer(chunk.length - done)
            if not self._holdings.read(digest, offset + done, view):
                raise SourceChanged(path=digest, detail="it is not served any more")
            done += len(view)
            sink.filled(len(view))

    def _clone(self, digest: str, offset: int, length: int, sink: CloningSink) -> int:
        """How many bytes the sink could share instead of copying them: a chunk lies in one file, so all or none."""
        run = self._holdings.file_run(digest, offset, length)
        if run is None:
            return 0
        try:
            return sink.clone(run.fd, run.offset, run.length)
        finally:
            os.close(run.fd)


def copy_local(
    holdings: Holdings,
    destination: FileDestination | MemoryDestination,
    cancelled: threading.Event,
    progress: Callable[[int], None],
) -> None:
    """Copy, and verify, what this node has of the object in other places. Raises ``Interrupted``, ``StorageError``."""
    local = LocalChunks(holdings, destination.manifest)
    scratch = memoryview(bytearray(SCRATCH_BYTES))
    for number in list(destination.verified.missing()) if local else []:
        if cancelled.is_set():
            raise Interrupted(detail="copying what is here was cancelled")
        chunk = destination.manifest.chunk(number)
        if local.has(chunk) and _copy(local, chunk, destination, scratch):
            destination.verified.add(number)
            destination.keep(range(number, number + 1))
            progress(chunk.length)


def _copy(
    local: LocalChunks, chunk: Chunk, destination: FileDestination | MemoryDestination, scratch: memoryview
) -> bool:
    """Copy one chunk; False where it is no longer there, or no longer right."""
    sink = destination.sink(range(chunk.number, chunk.number + 1), scratch)
    try:
        local.read(chunk, sink)
    except (Mismatch, SourceChanged) as error:
        log.info("chunk %d is not reused: %s", chunk.number, error)
        return False
    finally:
        sink.close()
    return True
