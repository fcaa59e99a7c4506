"""What a user registers: a file or a directory, scanned, hashed in parallel, and watched for changes by its stamps."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engine.memory.buffers import FileSpan
from engine.memory.open_files import FileStamp
from engine.memory.reading import OWN_LIMITS
from p2pstore.errors import BadSource, Interrupted, PathNotFound, SourceChanged, StorageError, UsageError
from p2pstore.objects.file_system import words
from p2pstore.objects.hashing import hasher
from p2pstore.objects.manifest import (
    MAX_FILES,
    MAX_OBJECT_BYTES,
    FileEntry,
    Manifest,
    check_chunk_size,
    choose_chunk_size,
    chunk_count,
)
from p2pstore.objects.names import path_fault
from p2pstore.objects.tasks import READ_BYTES, hash_range, run_tasks

RUN_BYTES = 64 * 1024 * 1024
"""What one task of the pool hashes at most: large enough to cost nothing, small enough to share out a file."""

Progress = Callable[[int], None]
"""Called with the number of bytes done since the last call, from any thread."""


@dataclass(frozen=True)
class SourceTree:
    """A scanned path: its files in manifest order, each with the stamp that it had, and its empty directories."""

    root: Path
    kind: str
    files: tuple[FileSpan, ...]
    paths: tuple[str, ...]
    modes: tuple[int, ...]
    directories: tuple[str, ...]

    @cached_property
    def size(self) -> int:
        """Bytes of all files. Progress is told with it for every chunk, so that it is summed up once."""
        return sum(f.size for f in self.files)


def scan(root: Path) -> SourceTree:
    """What is at ``root``.

    Raises ``PathNotFound``, ``BadSource`` (a link, a device, a bad name, too much), ``StorageError``, or
    ``SourceChanged`` when something goes away meanwhile.
    """
    try:
        status = os.lstat(root)
    except (FileNotFoundError, NotADirectoryError):
        raise PathNotFound(path=root) from None
    except (OSError, ValueError) as error:
        raise StorageError(path=root, detail=words(error)) from None
    if stat.S_ISREG(status.st_mode):
        span = FileSpan(str(root), status.st_size, FileStamp.of(status))
        _check_readable(root)
        return _checked(SourceTree(root, "file", (span,), ("",), (status.st_mode & 0o777,), ()))
    if not stat.S_ISDIR(status.st_mode):
        raise BadSource(path=root, detail=_kind(status.st_mode))
    found: dict[str, os.stat_result] = {}
    empty: list[str] = []
    for path, about in _walk(root):
        if about is None:
            empty.append(path)
        else:
            found[path] = about
        if max(len(found), len(empty)) > MAX_FILES:
            raise BadSource(path=root, detail=f"it has more than {MAX_FILES} files, or empty directories")
    paths = tuple(sorted(found))
    files = tuple(FileSpan(str(root / p), found[p].st_size, FileStamp.of(found[p])) for p in paths)
    modes = tuple(found[p].st_mode & 0o777 for p in paths)
    return _checked(SourceTree(root, "directory", files, paths, modes, tuple(sorted(empty))))


def _checked(tree: SourceTree) -> SourceTree:
    if tree.size > MAX_OBJECT_BYTES:
        raise BadSource(path=tree.root, detail=f"it is larger than {MAX_OBJECT_BYTES} bytes")
    return tree


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result | None]]:
    """Every file below, as (path in the object, status); an empty directory as (path, None)."""
    waiting = [(str(root), "")]
    while waiting:
        directory, prefix = waiting.pop()
        try:
            entries = list(os.scandir(directory))
        except OSError as error:
            raise _unreadable(directory, error) from None
        if not entries and prefix:
            yield prefix, None
        for entry in entries:
            path = f"{prefix}/{entry.name}" if prefix else entry.name
            fault = path_fault(path)
            if fault:
                raise BadSource(path=repr(entry.path), detail=f"its name {fault}")
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                raise _unreadable(entry.path, error) from None
            if stat.S_ISDIR(status.st_mode):
                waiting.append((entry.path, path))
            elif stat.S_ISREG(status.st_mode):
                _check_readable(Path(entry.path))
                yield path, status
            else:
                raise BadSource(path=entry.path, detail=_kind(status.st_mode))


def _unreadable(path: str, error: OSError) -> SourceChanged | StorageError:
    """What it means that something, which was there a moment ago, cannot be opened or looked at."""
    gone = error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
    return (SourceChanged if gone else StorageError)(path=path, detail=words(error))


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "it is a symbolic link; register what it points to, or copy with 'cp -rL' first"
    return "it is neither a file nor a directory"


def _check_readable(path: Path) -> None:
    if not os.access(path, os.R_OK):
        raise StorageError(path=path, detail="permission denied")


def hash_tree(
    tree: SourceTree,
    *,
    hash_name: str,
    chunk_size: int = 0,
    threads: int = 0,
    progress: Progress | None = None,
    cancelled: threading.Event | None = None,
) -> Manifest:
    """Hash every chunk of ``tree``, in parallel, and return its manifest.

    ``chunk_size`` 0 chooses one by size; ``threads`` 0 means one a core. Raises ``SourceChanged`` when a file is not
    after the hashing what it was at the scan, ``StorageError`` when one cannot be read, ``Interrupted`` when
    ``cancelled`` is set.
    """
    chunk_size = check_chunk_size(chunk_size) if chunk_size else choose_chunk_size(tree.size)
    make = hasher(hash_name)
    stop = cancelled or threading.Event()
    digests: list[list[bytes]] = [[b""] * chunk_count(f.size, chunk_size) for f in tree.files]
    local = threading.local()

    def run(file: int, first: int, last: int) -> None:
        if not hasattr(local, "buffer"):
            local.buffer = memoryview(bytearray(READ_BYTES))
        span = tree.files[file]
        try:
            # O_NONBLOCK: should a FIFO stand there by now, opening it must not wait for a writer.
            descriptor = os.open(span.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise _unreadable(span.path, error) from None
        try:
            _check_open(descriptor, span)
            for chunk in range(first, last):
                if stop.is_set():
                    raise Interrupted(detail=f"hashing {tree.root} was cancelled")
                start = chunk * chunk_size
                length = min(chunk_size, span.size - start)
                hashed = make()
                hash_range(descriptor, start, length, hashed.update, local.buffer, span.path)
                digests[file][chunk] = hashed.digest()
                if progress is not None:
                    progress(length)
            _check_open(descriptor, span)
        finally:
            os.close(descriptor)

    run_tasks(_tasks(tree.files, chunk_size), run, threads or os.cpu_count() or 1, stop)
    for span in tree.files:
        _check_stamp(span)
    files = zip(tree.paths, tree.files, tree.modes, digests, strict=True)
    entries = tuple(FileEntry(path, span.size, mode, tuple(chunks)) for path, span, mode, chunks in files)
    return Manifest(tree.kind, hash_name, chunk_size, entries, tree.directories)


def _check_open(descriptor: int, span: FileSpan) -> None:
    if FileStamp.of(os.fstat(descriptor)) != span.stamp:
        raise SourceChanged(path=span.path, detail="it changed while it was read")


def _tasks(files: Sequence[FileSpan], chunk_size: int) -> Iterator[tuple[int, int, int]]:
    """(file, first chunk, chunk after the last): work for one thread, a large file in several pieces."""
    step = max(1, RUN_BYTES // chunk_size)
    for number, span in enumerate(files):
        count = chunk_count(span.size, chunk_size)
        for first in range(0, count, step):
            yield number, first, min(count, first + step)


def _check_stamp(span: FileSpan) -> None:
    fault = stamp_fault(span)
    if fault:
        raise SourceChanged(path=span.path, detail=fault)


def reading_fault(path: str, offset: int) -> str:
    """What keeps a byte of a file from being read, in a few words; empty when nothing does, or a limit of our own."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.pread(descriptor, 1, offset)
        finally:
            os.close(descriptor)
    except OSError as error:
        return "" if error.errno in OWN_LIMITS else f"it cannot be read: {words(error)}"
    return ""


def stamp_fault(span: FileSpan) -> str:
    """How the file at ``span.path`` differs from its stamp, in a few words; empty when it does not."""
    if span.stamp is None:
        raise UsageError(detail=f"{span.path} has no stamp to compare with")
    try:
        now = FileStamp.of(os.lstat(span.path))
    except OSError as error:
        return words(error)
    if now == span.stamp:
        return ""
    if now.size != span.stamp.size:
        return f"its size went from {span.stamp.size} to {now.size} bytes"
    if (now.dev, now.inode) != (span.stamp.dev, span.stamp.inode):
        return "another file took its place"
    return "it was written to"
