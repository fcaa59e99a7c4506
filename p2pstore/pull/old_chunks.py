"""Where the chunks of an object lie in files that nobody registered: an older version that a get is to replace."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from engine.errors import SourceChanged, StorageError
from engine.files.system import system
from engine.memory.reading import TooShort, Unreadable, read_range
from engine.transports.base import CloningSink, Sink
from p2pstore.errors import Interrupted
from p2pstore.objects.cutting import chunk_count, chunk_end, chunk_start
from p2pstore.objects.file_system import words
from p2pstore.objects.hashing import hasher
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.tasks import hash_range, run_tasks
from p2pstore.objects.tree_hash import file_origin

log = logging.getLogger(__name__)

RUN_BYTES = 16 << 20
"""What one thread hashes before it takes the next piece."""

BUFFER_BYTES = 1 << 18
"""What it reads at once."""

Places = dict[tuple[bytes, int], tuple[str, int]]
"""From a chunk's digest and length to where it lies: a path, or an object's digest, and the offset there."""


def find_places(root: Path, manifest: Manifest, cancelled: threading.Event) -> Places:
    """The chunks of an object that lie in the regular files at or below ``root``, cut as the object is.

    All of it is hashed, on all cores. What cannot be read is passed over. Raises ``Interrupted``.
    """
    files = list(_regular_files(root))
    search = _Search(manifest, files, cancelled)
    run_tasks(search.tasks(), search.look, os.cpu_count() or 1, cancelled)
    return search.found


class _Search:
    def __init__(self, manifest: Manifest, files: list[tuple[str, int]], cancelled: threading.Event) -> None:
        self.found: Places = {}
        self._wanted = set(manifest.columns.all_digests())
        self._size = manifest.chunk_size
        self._hasher = hasher(manifest.hash)
        self._origins = bool(manifest.columns.origins)
        self._files = [(path, length, self._origin(path, length)) for path, length in files]
        self._cancelled = cancelled
        self._local = threading.local()

    def _origin(self, path: str, length: int) -> int:
        """Where a file is cut: as the object's are, which tell it where any has an origin."""
        return file_origin(path, length, self._size) if self._origins else 0

    def tasks(self) -> Iterator[tuple[int, int, int]]:
        """Pieces of files: the file's number, its first chunk, and the chunk after the last."""
        step = max(1, RUN_BYTES // self._size)
        for number, (_, length, origin) in enumerate(self._files):
            count = chunk_count(length, self._size, origin)
            for first in range(0, count, step):
                yield number, first, min(first + step, count)

    def look(self, number: int, first: int, last: int) -> None:
        """Hash a piece. Raises ``Interrupted``."""
        path, length, origin = self._files[number]
        try:
            descriptor = open_regular(path)
        except OSError as error:
            log.info("%s is not reused: %s", path, error)
            return
        try:
            for chunk in range(first, last):
                start = chunk_start(chunk, self._size, origin)
                self._hash(descriptor, path, start, chunk_end(chunk, length, self._size, origin) - start)
        except (SourceChanged, StorageError) as error:
            log.info("%s is not reused: %s", path, error)
        finally:
            system.close(descriptor)

    def _hash(self, descriptor: int, path: str, offset: int, length: int) -> None:
        if self._cancelled.is_set():
            raise Interrupted(detail="looking for what is here was cancelled")
        if not hasattr(self._local, "buffer"):
            self._local.buffer = memoryview(bytearray(BUFFER_BYTES))
        hashed = self._hasher()
        hash_range(descriptor, offset, length, hashed.update, self._local.buffer, path)
        digest = hashed.digest()
        if digest in self._wanted:
            self.found[digest, length] = (path, offset)


def open_regular(path: str) -> int:
    """A descriptor for reading what was a regular file when it was found; never waits. Raises ``OSError``."""
    return system.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def read_chunk(descriptor: int, offset: int, length: int, sink: Sink, path: str) -> None:
    """Bring part of an open file into ``sink``, sharing its blocks where that can be.

    Raises ``SourceChanged`` where it cannot be read, and what the sink raises.
    """
    try:
        done = sink.clone(descriptor, offset, length) if isinstance(sink, CloningSink) else 0
        read_range(descriptor, offset + done, length - done, sink.buffer, sink.filled)
    except TooShort:
        raise SourceChanged(path=path, detail="it is shorter than it was") from None
    except Unreadable as error:
        raise SourceChanged(path=path, detail=words(error)) from None


def _regular_files(root: Path) -> Iterator[tuple[str, int]]:
    """Each regular file at or below ``root`` that is not empty, with its size; no link is followed."""
    paths = [str(root)]
    if root.is_dir() and not root.is_symlink():
        paths = [os.path.join(directory, name) for directory, _, names in os.walk(root) for name in names]
    for path in paths:
        try:
            status = system.lstat(path)
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode) and status.st_size:
            yield path, status.st_size
