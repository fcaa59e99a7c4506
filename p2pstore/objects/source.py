"""What a user registers: a file or a directory, scanned, hashed in parallel, and watched for changes by its stamps."""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engine.files.stamps import FileStamp
from engine.files.system import system
from engine.memory.buffers import FileSpan
from engine.memory.reading import OWN_LIMITS, PASSING, read_some
from p2pstore.errors import (
    BadSource,
    Interrupted,
    PathNotFound,
    SourceChanged,
    StorageError,
    UsageError,
)
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
from p2pstore.objects.selection import Selection, literal
from p2pstore.objects.tasks import READ_BYTES, hash_range, run_tasks

log = logging.getLogger(__name__)

RUN_BYTES = 64 * 1024 * 1024
"""What one task of the pool hashes at most: large enough to cost nothing, small enough to share out a file."""

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""For opening a source. O_NONBLOCK: should a FIFO stand there by now, opening it must not wait for a writer."""

_LOOK_AGAIN = PASSING | {errno.ESTALE}

Progress = Callable[[int], None]
"""Called with the number of bytes done since the last call, from any thread."""


@dataclass(frozen=True)
class SourceTree:
    """A scanned path: its files in manifest order, each with the stamp that it had, and its empty directories."""

    root: Path
    """Where they lie: no link, which may be changed to lead to another version tomorrow."""
    kind: str
    files: tuple[FileSpan, ...]
    paths: tuple[str, ...]
    modes: tuple[int, ...]
    directories: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """What was left out by default, below which nothing was looked at."""
    foreign: tuple[str, ...] = ()
    """Files that are links to files outside of ``root``."""

    @cached_property
    def size(self) -> int:
        """Bytes of all files. Progress is told with it for every chunk, so that it is summed up once."""
        return sum(f.size for f in self.files)


def scan(root: Path, selection: Selection = Selection()) -> SourceTree:  # noqa: B008 - it is frozen
    """What is at ``root``, as far as ``selection`` takes it. Links to files are followed, and ``root`` in any case.

    Raises ``PathNotFound``, ``BadSource`` (a device, a bad name, a link that leads nowhere, too much),
    ``StorageError``, or ``SourceChanged`` when something goes away meanwhile.
    """
    root, status = _resolved(root)
    if stat.S_ISREG(status.st_mode):
        span = _span(str(root), status)
        _check_readable(str(root), "", status)
        return _checked(SourceTree(root, "file", (span,), ("",), (status.st_mode & 0o777,), ()))
    if not stat.S_ISDIR(status.st_mode):
        raise BadSource(path=root, detail=_kind(status.st_mode))
    walk = _Walk(root, selection)
    found = walk.files()
    paths = tuple(sorted(found))
    files = tuple(_span(str(root / p), found[p]) for p in paths)
    modes = tuple(found[p].st_mode & 0o777 for p in paths)
    directories = tuple(sorted(walk.empty)) if selection.keeps_empty else ()
    if selection.include and not files:
        raise BadSource(path=root, detail=f"no file in it fits {', '.join(map(repr, selection.include))}")
    tree = SourceTree(root, "directory", files, paths, modes, directories, tuple(walk.left_out), tuple(walk.foreign))
    return _checked(tree)


def named_files(root: Path, manifest: Manifest) -> SourceTree:
    """The files at ``root`` that the manifest names, as they are now. Raises ``SourceChanged`` or ``StorageError``."""
    spans = []
    modes = []
    for entry in manifest.files:
        path = str(root / entry.path if entry.path else root)
        try:
            status = system.stat(path)
        except OSError as error:
            raise _unreadable(path, "", error) from None
        if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
            raise SourceChanged(path=path, detail="it is no file of that size")
        spans.append(_span(path, status))
        modes.append(status.st_mode & 0o777)
    paths = tuple(entry.path for entry in manifest.files)
    return SourceTree(root, manifest.kind, tuple(spans), paths, tuple(modes), manifest.directories)


def _resolved(root: Path) -> tuple[Path, os.stat_result]:
    """The path, or where it leads if it is a link, with its status."""
    try:
        status = system.lstat(root)
        if not stat.S_ISLNK(status.st_mode):
            return root, status
    except (FileNotFoundError, NotADirectoryError):
        raise PathNotFound(path=root) from None
    except (OSError, ValueError) as error:
        raise StorageError(path=root, detail=words(error)) from None
    try:
        target = os.path.realpath(root, strict=True)
        return Path(target), system.lstat(target)
    except OSError as error:
        fault = _link_fault(str(root), error)
        raise (BadSource if fault else StorageError)(path=root, detail=fault or words(error)) from None


def _checked(tree: SourceTree) -> SourceTree:
    if tree.size > MAX_OBJECT_BYTES:
        raise BadSource(path=tree.root, detail=f"it is larger than {MAX_OBJECT_BYTES} bytes")
    return tree


class _Walk:
    """A look at everything below a directory."""

    def __init__(self, root: Path, selection: Selection) -> None:
        self.empty: list[str] = []
        self.left_out: list[str] = []
        self.foreign: list[str] = []
        self._root = root
        self._real_root = os.path.join(os.path.realpath(root), "")
        self._selection = selection
        self._waiting = [(str(root), "")]

    def files(self) -> dict[str, os.stat_result]:
        """Every file by its path in the object, each with its status: a link's is that of what it leads to."""
        found: dict[str, os.stat_result] = {}
        while self._waiting:
            directory, prefix = self._waiting.pop()
            for path, status in self._entries(directory, prefix):
                found[path] = status
                if len(found) > MAX_FILES:
                    raise self._too_many()
            if len(self.empty) > MAX_FILES:
                raise self._too_many()
        return found

    def _too_many(self) -> BadSource:
        return BadSource(path=self._root, detail=f"it has more than {MAX_FILES} files, or empty directories")

    def _entries(self, directory: str, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        """The files of one directory; its directories are left to wait."""
        try:
            entries = list(system.scandir(directory))
        except OSError as error:
            raise _unreadable(directory, prefix, error) from None
        if not entries and prefix:
            self.empty.append(prefix)
        names = {entry.name for entry in entries}
        for entry in entries:
            path = f"{prefix}/{entry.name}" if prefix else entry.name
            is_directory = _is_directory(entry, path)
            if not self._selection.takes(path, directory=is_directory):
                continue
            if self._selection.leaves_out(path, names, directory=is_directory):
                self.left_out.append(path)
                continue
            fault = path_fault(path)
            if fault:
                raise BadSource(path=repr(entry.path), detail=f"its name {fault}")
            if is_directory:
                self._waiting.append((entry.path, path))
                continue
            status = self._status(entry, path)
            _check_readable(entry.path, path, status)
            yield path, status

    def _status(self, entry: os.DirEntry[str], path: str) -> os.stat_result:
        """The status of a file, or of the one that a link leads to."""
        try:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                status = self._followed(entry.path, path, status)
        except OSError as error:
            raise _unreadable(entry.path, path, error) from None
        if not stat.S_ISREG(status.st_mode):
            raise BadSource(path=entry.path, detail=_kind(status.st_mode), pattern=literal(path))
        return status

    def _followed(self, link: str, path: str, about: os.stat_result) -> os.stat_result:
        """The status of what a link leads to. Raises ``BadSource`` and ``OSError``."""
        try:
            target = os.path.realpath(link, strict=True)
            status = system.lstat(target)
        except OSError as error:
            fault = _link_fault(link, error)
            if not fault:
                raise
            raise BadSource(path=link, detail=fault, pattern=literal(path)) from None
        if stat.S_ISDIR(status.st_mode):
            raise BadSource(path=link, detail="it is a link to a directory", pattern=literal(path))
        if not target.startswith(self._real_root):
            # Whoever may write here must not publish with our rights what they may not read themselves.
            if about.st_uid not in {os.geteuid(), 0, status.st_uid}:
                detail = f"it is another user's link to a file that is not theirs, {target}"
                raise BadSource(path=link, detail=detail, pattern=literal(path))
            self.foreign.append(path)
        return status


def _span(path: str, status: os.stat_result) -> FileSpan:
    return FileSpan(path, status.st_size, FileStamp.lasting(status, path))


def _is_directory(entry: os.DirEntry[str], inside: str) -> bool:
    """Whether it is one, and no link to one; where the file system does not say so in its listing, it is looked at."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError as error:
        raise _unreadable(entry.path, inside, error) from None


def _check_readable(path: str, inside: str, status: os.stat_result) -> None:
    """Raise ``StorageError`` where a file may not be read, ``BadSource`` where its size is untrue (/proc, some FUSE).

    ``inside`` is its path in the object, or empty for the object itself.
    """
    if status.st_size and system.access(path, os.R_OK):
        return
    pattern = {"pattern": literal(inside)} if inside else {}
    try:
        descriptor = system.open(path, _FLAGS)
    except OSError as error:
        raise StorageError(path=path, detail=words(error), **pattern) from None
    try:
        filled = not status.st_size and system.pread(descriptor, 1, 0)
    except OSError as error:
        log.info("%s, which is empty, cannot be read: %s", path, error.strerror)
        filled = False
    finally:
        system.close(descriptor)
    if filled:
        raise BadSource(path=path, detail="its file system says that it is empty, and it is not", **pattern)


def _unreadable(path: str, inside: str, error: OSError) -> SourceChanged | StorageError:
    """What it means that something, which was there a moment ago, cannot be opened or looked at.

    ``inside`` is its path in the object, or empty for the object itself.
    """
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
        return SourceChanged(path=path, detail=words(error))
    if inside:
        return StorageError(path=path, detail=words(error), pattern=literal(inside))
    return StorageError(path=path, detail=words(error))


def _link_fault(link: str, error: OSError) -> str:
    """Why a link leads nowhere; empty where something else is in the way."""
    if error.errno == errno.ELOOP:
        return "it is a link that leads in a circle"
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return f"it is a link to {_target(link)}, which does not exist"
    return ""


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return "something"


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return f"it is {kinds.get(stat.S_IFMT(mode), 'something else')}, neither a file nor a directory"


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
            descriptor = system.open(span.path, _FLAGS)
        except OSError as error:
            raise _unreadable(span.path, tree.paths[file], error) from None
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
            system.close(descriptor)

    run_tasks(_tasks(tree.files, chunk_size), run, threads or os.cpu_count() or 1, stop)
    for span in tree.files:
        _check_stamp(span)
    files = zip(tree.paths, tree.files, tree.modes, digests, strict=True)
    entries = tuple(FileEntry(path, span.size, mode, tuple(chunks)) for path, span, mode, chunks in files)
    return Manifest(tree.kind, hash_name, chunk_size, entries, tree.directories)


def _check_open(descriptor: int, span: FileSpan) -> None:
    now = FileStamp.of(system.fstat(descriptor))
    if span.stamp is None or not span.stamp.fits(now):
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
        descriptor = system.open(path, _FLAGS)
        try:
            read_some(descriptor, memoryview(bytearray(1)), offset)
        finally:
            system.close(descriptor)
    except OSError as error:
        return "" if error.errno in OWN_LIMITS else f"it cannot be read: {words(error)}"
    return ""


def stamp_fault(span: FileSpan) -> str:
    """How the file at ``span.path`` differs from its stamp, in a few words; empty when it does not."""
    if span.stamp is None:
        raise UsageError(detail=f"{span.path} has no stamp to compare with")
    try:
        now = _stamp_now(span.path)
    except OSError as error:
        return "" if error.errno in OWN_LIMITS else words(error)
    if span.stamp.fits(now):
        return ""
    if now.size != span.stamp.size:
        return f"its size went from {span.stamp.size} to {now.size} bytes"
    if (now.dev, now.inode) != (span.stamp.dev, span.stamp.inode):
        return "another file took its place"
    return "it was written to"


def renumbered(spans: Sequence[FileSpan]) -> bool:
    """Whether all that differs of these files is their inode numbers: what they hold tells whether they are others."""
    found = False
    for span in spans:
        try:
            now = _stamp_now(span.path)
        except OSError:
            return False
        if span.stamp is None or not (span.stamp.fits(now) or span.stamp.renumbered(now)):
            return False
        found = found or not span.stamp.fits(now)
    return found


def _stamp_now(path: str) -> FileStamp:
    """The stamp of what is at a path; after an error that may pass it is looked at again. Raises ``OSError``."""
    try:
        return FileStamp.of(system.stat(path))
    except OSError as error:
        if error.errno not in _LOOK_AGAIN:
            raise
        return FileStamp.of(system.stat(path))
