"""What of an object this node already has, chunk by chunk, in its holdings and at the destination itself.

Equal hashes are equal chunks. Whatever is copied is hashed again on its way, so an index that is out of date costs a
chunk that is pulled after all, and nothing else.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.errors import SourceChanged
from engine.transports.base import CloningSink, Sink
from p2pstore.errors import Interrupted
from p2pstore.objects.manifest import Chunk, Manifest
from p2pstore.objects.tasks import run_tasks
from p2pstore.pull.destination import Destination, Mismatch
from p2pstore.pull.old_chunks import Places, open_regular, read_chunk
from p2pstore.pull.tuning import PIECE_BYTES

if TYPE_CHECKING:
    from p2pstore.holding.holdings import Holdings

log = logging.getLogger(__name__)

COPY_RUN = 16
"""Chunks that one thread copies before it takes the next ones."""


class LocalChunks:
    """An index from digests to a place on this node. What was hashed another way, or cut differently, misses."""

    def __init__(self, holdings: Holdings, manifest: Manifest, old: Places | None = None) -> None:
        """``old`` are places in files that nobody serves; see ``p2pstore.pull.old_chunks``."""
        wanted: set[bytes] = set()
        self._places: Places = {}
        self._old = old or {}
        self._serving = holdings.serving
        self.used: set[str] = set()
        """Contents of which something was read."""
        for digest, replica in list(holdings.replicas.items()):
            theirs = replica.manifest
            if theirs.hash == manifest.hash:
                wanted = wanted or set(manifest.columns.all_digests())
                for chunk in theirs.all_chunks():
                    if chunk.digest in wanted and chunk.number in replica.have:
                        self._places[chunk.digest, chunk.length] = (digest, chunk.offset)

    def __bool__(self) -> bool:
        return bool(self._places or self._old)

    def has(self, chunk: Chunk) -> bool:
        """Whether an equal chunk is somewhere here."""
        key = chunk.digest, chunk.length
        return key in self._places or key in self._old

    def read(self, chunk: Chunk, sink: Sink) -> None:
        """Bring the chunk into ``sink``. Raises ``SourceChanged`` where it is gone, and what the sink raises."""
        key = chunk.digest, chunk.length
        if key not in self._places:
            path, offset = self._old[key]
            _read_file(path, offset, chunk.length, sink)
            return
        digest, offset = self._places[key]
        self.used.add(digest)
        done = self._clone(digest, offset, chunk.length, sink) if isinstance(sink, CloningSink) else 0
        while done < chunk.length:
            view = sink.buffer(chunk.length - done)
            if not self._serving.read(digest, offset + done, view):
                raise SourceChanged(path=digest, detail="it is not served any more")
            done += len(view)
            sink.filled(len(view))

    def _clone(self, digest: str, offset: int, length: int, sink: CloningSink) -> int:
        """How many bytes the sink could share instead of copying them: a chunk lies in one file, so all or none."""
        run = self._serving.file_run(digest, offset, length)
        if run is None:
            return 0
        try:
            return sink.clone(run.fd, run.offset, run.length)
        finally:
            os.close(run.fd)


def _read_file(path: str, offset: int, length: int, sink: Sink) -> None:
    """Bring part of a file into ``sink``. Raises ``SourceChanged``, and what the sink raises."""
    try:
        descriptor = open_regular(path)
    except OSError as error:
        raise SourceChanged(path=path, detail=str(error.strerror).lower()) from None
    try:
        read_chunk(descriptor, offset, length, sink, path)
    finally:
        os.close(descriptor)


def copy_local(
    holdings: Holdings,
    destination: Destination,
    cancelled: threading.Event,
    progress: Callable[[int], None],
    old: Places | LocalChunks | None = None,
) -> None:
    """Copy, and verify, what this node has of the object in other places, on all cores.

    ``old`` is as of ``LocalChunks``, or the whole index where it was made before.

    Raises ``Interrupted`` or ``StorageError``.
    """
    chunks = old if isinstance(old, LocalChunks) else LocalChunks(holdings, destination.manifest, old)
    if not chunks:
        return
    numbers = [n for n in destination.verified.missing() if chunks.has(destination.manifest.chunk(n))]
    lock = threading.Lock()
    local = threading.local()
    faults: list[Exception] = []

    def copy(first: int, last: int, _: int) -> None:
        if not hasattr(local, "scratch"):
            local.scratch = memoryview(bytearray(PIECE_BYTES))
        for number in numbers[first:last]:
            if cancelled.is_set():
                raise Interrupted(detail="copying what is here was cancelled")
            chunk = destination.manifest.chunk(number)
            fault = _copy(chunks, chunk, destination, local.scratch)
            if fault is not None:
                faults.append(fault)
            else:
                destination.keep(range(number, number + 1))  # may hang: nobody else is to wait for it
                with lock:
                    destination.verified.add(number)
                    progress(chunk.length)

    tasks = ((first, min(first + COPY_RUN, len(numbers)), 0) for first in range(0, len(numbers), COPY_RUN))
    run_tasks(tasks, copy, os.cpu_count() or 1, cancelled)
    for digest in chunks.used:
        holdings.use(digest)
    if faults:
        log.info("%d chunks that were here are not reused: %s", len(faults), faults[0])


def _copy(local: LocalChunks, chunk: Chunk, destination: Destination, scratch: memoryview) -> Exception | None:
    """Copy one chunk; what is wrong where it is no longer there, or no longer right."""
    sink = destination.sink(range(chunk.number, chunk.number + 1), scratch)
    try:
        local.read(chunk, sink)
    except (Mismatch, SourceChanged) as error:
        return error
    finally:
        sink.close()
    return None
