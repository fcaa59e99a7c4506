"""Hashing a scanned tree: large files shared out among threads, small ones with as few system calls as there can be."""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate

from engine.files.stamps import FileStamp, pack_stamp
from engine.files.system import system
from engine.memory.file_spans import FileSpans
from p2pstore.errors import Interrupted, SourceChanged
from p2pstore.objects.choices import DIGEST_BYTES
from p2pstore.objects.cutting import chunk_count, chunk_end, chunk_start, origin_of
from p2pstore.objects.file_list import FileList
from p2pstore.objects.hashing import Hasher, hasher
from p2pstore.objects.manifest import Manifest, check_chunk_size, choose_chunk_size
from p2pstore.objects.source import OPEN_FLAGS, SourceTree, changed, stamp_fault, unreadable
from p2pstore.objects.steps import Steps
from p2pstore.objects.tasks import READ_BYTES, hash_range, run_tasks

RUN_BYTES = 64 * 1024 * 1024
"""What one task of the pool hashes at most: large enough to cost nothing, small enough to share out a file."""

SMALL_BYTES = READ_BYTES
"""A file of no more is read in one call, and hashed by the task that has its neighbours, too."""

SMALL_FILES = 256
"""What one task hashes of those at most."""

Progress = Callable[[int], None]
"""Called with the number of bytes done since the last call, from any thread."""


def hash_tree(
    tree: SourceTree,
    *,
    hash_name: str,
    chunk_size: int = 0,
    threads: int = 0,
    progress: Progress | None = None,
    cancelled: threading.Event | None = None,
    steps: Steps | None = None,
    origins: Mapping[int, int] | None = None,
) -> Manifest:
    """Hash every chunk of ``tree``, in parallel, and return its manifest.

    ``chunk_size`` 0 chooses one by size; ``origins`` are those of a manifest that it is compared with, by the numbers
    of files, and otherwise what the files tell. ``threads`` 0 means one a core. Raises ``SourceChanged`` when a file is
    not after the hashing what it was at the scan, ``StorageError`` when one cannot be read, ``Interrupted`` when
    ``cancelled`` is set. ``steps`` hears when all is hashed, and the files are looked at once more.
    """
    chunk_size = check_chunk_size(chunk_size) if chunk_size else choose_chunk_size(tree.size)
    threads = threads or os.cpu_count() or 1
    if origins is None:
        origins = find_origins(tree.files, chunk_size)
    work = _Hashing(tree, hash_name, chunk_size, origins, progress, cancelled or threading.Event())
    parts = _parts(tree.files.sizes, chunk_size, min(SMALL_BYTES, chunk_size), origins)
    run_tasks(parts, work.part, threads, work.stop)
    run_tasks(_batches(tree.files.sizes), work.small, threads, work.stop, alone=True)
    if steps is not None:
        steps.begin("comparing", len(tree.files), "files")
    for number in changed(tree.files, steps.add if steps is not None else None):
        fault = stamp_fault(tree.files[number])
        if fault:
            raise SourceChanged(path=tree.files.path(number), detail=fault)
    return Manifest(tree.kind, hash_name, chunk_size, work.files(), tree.directories)


def find_origins(spans: FileSpans, chunk_size: int) -> dict[int, int]:
    """The origins of the files that have one. What cannot be read has none: hashing it tells why."""
    found: dict[int, int] = {}
    if max(spans.sizes, default=0) <= chunk_size:
        return found  # as it is with many files
    for number in [number for number, size in enumerate(spans.sizes) if size > chunk_size]:
        origin = file_origin(spans.path(number), spans.sizes[number], chunk_size)
        if origin:
            found[number] = origin
    return found


def file_origin(path: str, size: int, chunk_size: int) -> int:
    """The origin of a file on disk; 0 where it cannot be read."""
    if size <= chunk_size:
        return 0
    try:
        descriptor = system.open(path, OPEN_FLAGS)
        try:
            return origin_of(lambda offset, length: system.pread(descriptor, length, offset), size, chunk_size)
        finally:
            system.close(descriptor)
    except OSError:
        return 0


class _Hashing:
    """The digests of a tree, as several threads find them."""

    def __init__(
        self,
        tree: SourceTree,
        hash_name: str,
        chunk_size: int,
        origins: Mapping[int, int],
        progress: Progress | None,
        stop: threading.Event,
    ) -> None:
        self.stop = stop
        self._tree = tree
        self._spans = tree.files
        self._chunk_size = chunk_size
        self._origins = origins
        self._small = min(SMALL_BYTES, chunk_size)
        self._progress = progress
        self._make = hasher(hash_name)
        self._width = DIGEST_BYTES[hash_name]
        if origins:
            counts = (chunk_count(size, chunk_size, origins.get(n, 0)) for n, size in enumerate(tree.files.sizes))
        else:
            counts = (-(-size // chunk_size) for size in tree.files.sizes)
        self._first_chunks = array("Q", accumulate(counts, initial=0))
        self._digests = bytearray(self._first_chunks[-1] * self._width)
        self._local = threading.local()

    def files(self) -> FileList:
        """The files with their digests."""
        tree = self._tree
        digests = bytes(self._digests)
        sizes, first_chunks = tree.files.sizes, self._first_chunks
        return FileList(tree.paths, sizes, tree.modes, first_chunks, digests, self._width, self._origins)

    def part(self, file: int, first: int, last: int) -> None:
        """Hash these chunks of a file."""
        if not hasattr(self._local, "buffer"):
            self._local.buffer = memoryview(bytearray(READ_BYTES))
        path, size, origin = self._spans.path(file), self._spans.sizes[file], self._origins.get(file, 0)
        descriptor = _open(path, self._spans.paths[file])
        try:
            _check_open(descriptor, self._spans, file)
            for chunk in range(first, last):
                self._check_stop()
                start = chunk_start(chunk, self._chunk_size, origin)
                length = chunk_end(chunk, size, self._chunk_size, origin) - start
                hashed = self._make()
                hash_range(descriptor, start, length, hashed.update, self._local.buffer, path)
                self._note(self._first_chunks[file] + chunk, hashed, length)
            _check_open(descriptor, self._spans, file)
        finally:
            system.close(descriptor)

    def small(self, begin: int, end: int, _: int) -> None:
        """Hash the small ones of these files. What counts are the calls: stamps are compared again in the end alone."""
        spans, sizes = self._spans, self._spans.sizes
        for file in range(begin, end):
            size = sizes[file]
            if not 0 < size <= self._small:
                continue
            self._check_stop()
            path = spans.path(file)
            descriptor = _open(path, self._spans.paths[file])
            try:
                _check_open(descriptor, spans, file)
                data = system.pread(descriptor, size, 0)
            except OSError:
                data = b""
            finally:
                system.close(descriptor)
            if len(data) < size:
                self.part(file, 0, 1)  # which tries again, and says what is wrong
                continue
            hashed = self._make()
            hashed.update(memoryview(data))
            self._note(self._first_chunks[file], hashed, size)

    def _note(self, chunk: int, hashed: Hasher, length: int) -> None:
        self._digests[chunk * self._width : (chunk + 1) * self._width] = hashed.digest()
        if self._progress is not None:
            self._progress(length)

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise Interrupted(detail=f"hashing {self._tree.root} was cancelled")


def _open(path: str, inside: str) -> int:
    """``inside`` is its path in the object."""
    try:
        return system.open(path, OPEN_FLAGS)
    except OSError as error:
        raise unreadable(path, inside, error) from None


def _check_open(descriptor: int, spans: FileSpans, file: int) -> None:
    status = system.fstat(descriptor)
    if pack_stamp(status) == spans.stamp(file):
        return
    stamp = spans[file].stamp
    if stamp is None or not stamp.fits(FileStamp.of(status)):
        raise SourceChanged(path=spans.path(file), detail="it changed while it was read")


def _parts(
    sizes: Sequence[int], chunk_size: int, small: int, origins: Mapping[int, int]
) -> Iterator[tuple[int, int, int]]:
    """(file, first chunk, chunk after the last): work for one thread, a large file in several pieces."""
    step = max(1, RUN_BYTES // chunk_size)
    for number, size in enumerate(sizes):
        if size > small:
            count = chunk_count(size, chunk_size, origins.get(number, 0))
            for first in range(0, count, step):
                yield number, first, min(count, first + step)


def _batches(sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(file, file after the last): adjacent files, the small ones of which are work for one thread."""
    for first in range(0, len(sizes), SMALL_FILES):
        yield first, min(first + SMALL_FILES, len(sizes)), 0
