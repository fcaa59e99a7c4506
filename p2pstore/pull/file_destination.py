"""Where a get writes: ``DEST.part`` beside a journal, verified chunk by chunk, renamed to ``DEST`` when it is whole.

The one invariant that makes everything else simple: a chunk goes from absent to correct and never back, and the final
name appears only when every chunk is correct and on disk.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from engine.files.durable import sync_directory, sync_files
from engine.files.refusals import cannot, refused, say
from engine.files.room import allocated, free_bytes
from engine.files.stamps import FileStamp
from engine.files.system import system
from engine.memory.buffers import FilesBuffer
from engine.memory.file_spans import FileSpan
from engine.memory.region import Region
from p2pstore.errors import (
    DestinationBusy,
    DestinationExists,
    ForeignFile,
    Interrupted,
    PathNotFound,
    SourceChanged,
    StorageError,
    UsageError,
)
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.file_system import remove, rename_new, rename_over, words
from p2pstore.objects.hashing import hasher
from p2pstore.objects.manifest import Chunk, Manifest
from p2pstore.objects.tasks import READ_BYTES, hash_range, run_tasks
from p2pstore.pull.destination import ABORT_SECONDS
from p2pstore.pull.file_sink import FileSink
from p2pstore.pull.journal import Journal, is_for
from p2pstore.pull.writers import Writers

SUFFIX = ".part"
JOURNAL_SUFFIX = ".part.journal"


class FileDestination:
    """A destination in the file system, for one manifest. Chunks may be written by several threads at once."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        name: str,
        *,
        force: bool = False,
        cancelled: threading.Event | None = None,
    ) -> None:
        """Lock and prepare ``path``'s partial form; nothing is verified yet: see ``recheck``.

        Raises ``UsageError`` (the root), ``PathNotFound`` (no such directory), ``StorageError``, ``ForeignFile``,
        ``DestinationExists`` (something that is no partial get of ours stands where the partial form goes),
        ``DestinationBusy``, or ``Interrupted`` once ``cancelled`` is set; the next get goes on from what is there then.
        """
        if not path.name:
            raise UsageError(detail=f"{path} cannot be a destination")
        self.path = path
        self.manifest = manifest
        self.name = name
        self.force = force
        self._cancelled = cancelled or threading.Event()
        self.part = path.with_name(path.name + SUFFIX)
        self.verified = Bitmap(manifest.chunks)
        self.new_hasher = hasher(manifest.hash)
        self.clones = True  # until the file system says that it cannot
        _check_parent(path)
        journal = path.with_name(path.name + JOURNAL_SUFFIX)
        if os.path.lexists(self.part) and not os.path.lexists(journal) and not force:
            raise DestinationExists(path=self.part)
        self.journal = Journal(journal, manifest.digest, name, path)
        self.writers = Writers(self.journal.close)
        try:
            if not self.journal.resumed:
                remove(self.part)
            self._lay_out()
        except BaseException as error:
            if not self.journal.resumed and not isinstance(error, Interrupted):
                self._undo()
            self.abort()
            if isinstance(error, OSError):
                raise StorageError(path=error.filename or self.part, detail=words(error)) from None
            raise

    def _undo(self) -> None:
        """Leave nothing behind of a get that could not begin."""
        with contextlib.suppress(OSError, StorageError):  # the get raises why it could not begin
            remove(self.part)
            self.journal.remove()

    def _lay_out(self) -> None:
        """Make every directory and every file, at its full size; what is there already keeps its content."""
        if self.manifest.kind == "directory":
            _directory(self.part)
            self._refuse_foreign()
            for directory in sorted(self._directories()):
                _directory(self.part / directory)
        self._check_room()
        for number, entry in enumerate(self.manifest.files):
            if self._cancelled.is_set():
                raise Interrupted(detail="making files was cancelled")
            descriptor = self.open_file(number, os.O_CREAT)
            try:
                if system.fstat(descriptor).st_size != entry.size:
                    _resize(descriptor, self.file_path(number), entry.size)
            finally:
                system.close(descriptor)

    def _refuse_foreign(self) -> None:
        """Raise ``ForeignFile`` for something in the partial directory that is not the object's."""
        known = self._directories().union(entry.path for entry in self.manifest.files)
        top = len(str(self.part)) + 1
        for directory, directories, names in os.walk(self.part):
            inside = f"{directory[top:]}/" if directory[top:] else ""
            for name in (*directories, *names):
                if inside + name not in known:
                    raise ForeignFile(path=Path(directory, name))

    def _directories(self) -> set[str]:
        """Every directory of the object but its root, as paths from there. Cheap for many files: one look at each."""
        found: set[str] = set()
        for path in (
            *(f"{directory}/" for directory in self.manifest.directories),
            *(f.path for f in self.manifest.files),
        ):
            parent = path.rpartition("/")[0]
            while parent and parent not in found:
                found.add(parent)
                parent = parent.rpartition("/")[0]
        return found

    def _check_room(self) -> None:
        """Refuse at once what cannot fit: better than a full disk at 90%."""
        free = free_bytes(self.path.parent)
        if free is None:
            return
        there = sum(_allocated(self.file_path(n)) for n in range(len(self.manifest.files)))
        listed = sum(self.manifest.lengths[c] for c in set(self.journal.chunks or ()) if c < self.manifest.chunks)
        needed = self.manifest.size - max(there, listed)
        if needed > free:
            raise StorageError(path=self.path, detail=f"no space left: {needed} bytes are needed, {free} are free")

    def file_path(self, number: int) -> Path:
        """Where the file of that number is while the destination is partial."""
        entry = self.manifest.files[number]
        return self.part / entry.path if entry.path else self.part

    def open_file(self, number: int, flags: int = 0) -> int:
        """A descriptor of that file, for reading and writing; the caller closes it. Raises ``StorageError``."""
        path = self.file_path(number)
        flags |= os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            try:
                return system.open(path, flags, 0o600)
            except PermissionError:
                if not stat.S_ISREG(system.lstat(path).st_mode):
                    raise
                system.chmod(path, 0o600)  # a ``finish`` that failed at its very end had set the final mode
                return system.open(path, flags, 0o600)
        except OSError as error:
            raise StorageError(path=path, detail=words(error)) from None

    def recheck(self, cancelled: threading.Event, progress: Callable[[int], None] | None = None) -> None:
        """Hash the chunks that the journal lists, in parallel; those that match are verified, the others forgotten."""
        listed = sorted({c for c in self.journal.chunks or () if c < self.manifest.chunks})
        if not listed:
            return
        good: list[int] = []
        local = threading.local()

        def check(first: int, last: int, _: int) -> None:
            if not hasattr(local, "buffer"):
                local.buffer = memoryview(bytearray(READ_BYTES))
            for place in range(first, last):
                if cancelled.is_set():
                    raise Interrupted(detail="checking what is there was cancelled")
                chunk = self.manifest.chunk(listed[place])
                if self.matches(chunk, local.buffer):
                    good.append(chunk.number)
                if progress is not None:
                    progress(chunk.length)

        step = 64
        tasks = ((first, min(first + step, len(listed)), 0) for first in range(0, len(listed), step))
        run_tasks(tasks, check, os.cpu_count() or 1, cancelled)
        if len(good) != len(listed):
            self.journal.restart(good, self.manifest.digest, self.name)
        self.verified.update(good)

    def matches(self, chunk: Chunk, buffer: memoryview) -> bool:
        """Whether the chunk's bytes in the partial form are right."""
        hashed = self.new_hasher()
        descriptor = self.open_file(chunk.file)
        try:
            hash_range(
                descriptor, chunk.file_offset, chunk.length, hashed.update, buffer, str(self.file_path(chunk.file))
            )
        except SourceChanged:
            return False
        finally:
            os.close(descriptor)
        return hashed.digest() == chunk.digest

    def sink(self, run: range, scratch: memoryview) -> FileSink:
        """See ``Destination.sink``."""
        return FileSink(self, run, scratch)

    def place(self, run: range) -> Region | None:  # noqa: ARG002 - none of it is memory
        """See ``Destination.place``."""
        return None

    def keep(self, run: range) -> None:
        """Note in the journal that the chunks of ``run`` are verified, unless the destination has ended."""
        try:
            self.writers.enter()
        except Interrupted:
            return
        try:
            self.journal.add(run)
        finally:
            self.writers.leave()

    def partial_buffer(self, servable: Callable[[int, int], bool]) -> FilesBuffer:
        """The buffer by which peers may read the ranges that ``servable(offset, length)`` allows."""
        spans = [FileSpan(str(self.file_path(n)), e.size) for n, e in enumerate(self.manifest.files)]
        return FilesBuffer(self.manifest.digest, spans, servable=servable)

    def finish(self) -> Sequence[FileSpan]:
        """Set modes, sync, and rename to the final name. Returns the final files with their stamps.

        Raises ``DestinationExists`` when something appeared there meanwhile, ``ForeignFile`` for what appeared in the
        partial form, or ``StorageError``; the partial form then stays, and the same get goes on from it.
        """
        if not self.writers.stop(ABORT_SECONDS):
            raise StorageError(path=self.part, detail=f"a write has not ended for {ABORT_SECONDS:g} s")
        try:
            paths = [self.file_path(n) for n in range(len(self.manifest.files))]
            for path, entry in zip(paths, self.manifest.files, strict=True):
                _set_mode(path, entry.mode)
            sync_files(paths, self.path.parent)
            if self.manifest.kind == "directory":
                self._refuse_foreign()
                inside = {p.parent for p in paths} | {self.part / d for d in self.manifest.directories}
                for directory in sorted(inside):
                    sync_directory(directory)
                sync_directory(self.part)
            stamps = [self._stamp(n, p) for n, p in enumerate(paths)]
            (rename_over if self.force else rename_new)(self.part, self.path)
            sync_directory(self.path.parent)
        except FileExistsError:
            raise DestinationExists(path=self.path) from None
        except OSError as error:
            raise StorageError(path=error.filename or self.path, detail=words(error)) from None
        self.journal.remove()
        self.writers.end(0)
        if self.manifest.kind == "file":
            stamps = [_renamed(self.path, stamps[0])]
        final = [self.path / e.path if e.path else self.path for e in self.manifest.files]
        return tuple(FileSpan(str(p), s.size, s) for p, s in zip(final, stamps, strict=True))

    def _stamp(self, number: int, path: Path) -> FileStamp:
        """The stamp of a whole file. Raises ``StorageError`` where it has not the size that was written."""
        status = system.lstat(path)
        size = self.manifest.files[number].size
        if status.st_size != size:
            raise StorageError(path=path, detail=f"it has {status.st_size} bytes after {size} were written")
        return FileStamp.lasting(status, str(path))

    def abort(self, timeout: float = ABORT_SECONDS) -> bool:
        """See ``Destination.abort``: unlock; what is there stays, for the next get to go on from."""
        return self.writers.end(timeout)


def _renamed(path: Path, stamp: FileStamp) -> FileStamp:
    """The stamp of a file that was renamed, which counts as a change of it."""
    try:
        now = FileStamp.of(system.lstat(path))
    except OSError:
        return replace(stamp, ctime_ns=0)
    return replace(stamp, ctime_ns=now.ctime_ns if stamp.ctime_ns else 0)


def tidy(path: Path, manifest: Manifest, name: str) -> None:
    """Remove what a get left beside the object when it was killed after it had put that in place."""
    journal = path.with_name(path.name + JOURNAL_SUFFIX)
    if not is_for(journal, manifest.digest):
        return
    with contextlib.suppress(DestinationBusy, StorageError, OSError):
        held = Journal(journal, manifest.digest, name, path)
        try:
            if held.resumed:
                remove(path.with_name(path.name + SUFFIX))
                held.remove()
        finally:
            held.close()


def _check_parent(path: Path) -> None:
    try:
        mode = path.parent.stat().st_mode
    except FileNotFoundError:
        raise PathNotFound(path=path.parent) from None
    except OSError as error:
        raise StorageError(path=path.parent, detail=words(error)) from None
    if not stat.S_ISDIR(mode):
        raise StorageError(path=path.parent, detail="not a directory")


def _directory(path: Path) -> None:
    """Make a directory; one that is there must be a real one, not a link to elsewhere."""
    try:
        path.mkdir()
    except FileExistsError:
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise


def _allocated(path: Path) -> int:
    try:
        return allocated(system.lstat(path)) or 0
    except OSError:
        return 0


def _resize(descriptor: int, path: Path, size: int) -> None:
    """Give an open file its size; one that only grows by being written gets it so. Raises ``OSError``."""
    try:
        system.ftruncate(descriptor, size)
    except OSError as error:
        if not refused("ftruncate", error, path):
            raise


def _set_mode(path: Path, mode: int) -> None:
    """Give a file its mode, where the file system lets us and it has another. Raises ``OSError``."""
    try:
        system.chmod(path, mode)
    except OSError as error:
        if not cannot("chmod", error):
            raise
        if stat.S_IMODE(system.lstat(path).st_mode) != mode:
            say("chmod", error, path.parent)
