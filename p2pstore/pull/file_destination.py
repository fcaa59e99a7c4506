"""Where a get writes: a partial form in a directory of its own, verified chunk by chunk, put in place when it is whole.

The one invariant that makes everything else simple: a chunk goes from absent to correct and never back, and the final
name appears only when every chunk is correct and on disk.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from engine.files.durable import sync_directory
from engine.files.room import allocated, free_bytes, memory_for
from engine.files.system import system
from engine.memory.buffers import FilesBuffer
from engine.memory.file_spans import FileSpan, FileSpans
from engine.memory.region import Region
from p2pstore.errors import (
    DestinationExists,
    Interrupted,
    PartChanged,
    SourceChanged,
    StorageError,
)
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.file_system import words
from p2pstore.objects.hashing import hasher
from p2pstore.objects.manifest import Chunk, Manifest
from p2pstore.objects.repeats import repeats_of
from p2pstore.objects.steps import Steps
from p2pstore.objects.tasks import READ_BYTES, hash_range, run_tasks
from p2pstore.pull import part_tree
from p2pstore.pull.destination import ABORT_SECONDS, RunSink
from p2pstore.pull.file_sink import FileSink
from p2pstore.pull.old_chunks import read_chunk
from p2pstore.pull.part_files import PartFiles
from p2pstore.pull.placing import fill, place, renamed
from p2pstore.pull.target import entries, examine, taken
from p2pstore.pull.tuning import Place
from p2pstore.pull.workplace import Workplace
from p2pstore.pull.writers import Writers

log = logging.getLogger(__name__)


class FileDestination:
    """A destination in the file system, for one manifest. Chunks may be written by several threads at once."""

    left_out = 0
    """See ``Destination.left_out``."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        name: str,
        *,
        force: bool = False,
        cancelled: threading.Event | None = None,
        check: Callable[[], None] | None = None,
        steps: Steps | None = None,
        shape: Manifest | None = None,
        note_bytes: int = 0,
    ) -> None:
        """Find out what ``path`` is, and prepare a partial form; nothing is verified yet: see ``recheck``.

        ``shape`` tells of the files that are made where these are not the object's: its paths, sizes and modes count,
        and its digest, by which the next get knows it. ``note_bytes`` is as of ``Journal``.
        ``check`` is called before something is replaced, and raises where that is not to be. Raises as
        ``examine``, ``DestinationBusy``, ``ForeignFile``, ``StorageError``, or ``Interrupted`` once ``cancelled`` is
        set; the next get goes on from what is there then. ``steps`` hears what is being done, also later.
        """
        self.path = path
        self.manifest = manifest
        self.shape = shape or manifest
        self.name = name
        self.force = force
        self.steps = steps or Steps()
        self._check = check or (lambda: None)
        self._cancelled = cancelled or threading.Event()
        self.verified = Bitmap(manifest.chunks)
        self.new_hasher = hasher(manifest.hash)
        self.made_root = False
        """Whether the destination itself was made: a directory that is filled was there before."""
        self.clones = True  # until the file system says that it cannot
        self._target = examine(path, self.shape, force=force)
        self._work = Workplace(self._target.work_in, path, self.shape.digest, name, note_bytes=note_bytes)
        self.journal = self._work.journal
        self.part = self._work.part
        self.files = PartFiles(self.part, self.shape)
        self.writers = Writers(self._let_go)
        try:
            self._lay_out()
        except BaseException as error:
            if not self.journal.resumed and not isinstance(error, Interrupted):
                self.files.close()
                self._work.remove()  # nothing is left of a get that could not begin
            self.abort()
            if isinstance(error, OSError):
                raise StorageError(path=error.filename or self.part, detail=words(error)) from None
            raise

    @property
    def lands_in(self) -> Place:
        """See ``Destination.lands_in``: it counts as one file where one has more than half of the bytes."""
        sizes = self.manifest.columns.sizes
        return Place.FILE if 2 * max(sizes, default=0) > sum(sizes) else Place.FILES

    @property
    def others(self) -> list[Path]:
        """Partial forms of the same object that other gets left, or write: chunks of theirs may be copied."""
        return self._work.others

    def _lay_out(self) -> None:
        """Make every directory and every file, at its full size; what is there already keeps its content."""
        fresh = not self.journal.resumed
        part_tree.make_directories(self.part, self.shape, fresh=fresh)
        self._check_room()
        self.files.open_root()
        part_tree.make_files(self.files, self.shape, self.steps, self._cancelled, fresh=fresh)
        self.files.begin()

    def _check_room(self) -> None:
        """Refuse at once what cannot fit: better than a full disk at 90%, or an agent that the kernel kills."""
        free, memory = free_bytes(self._work.path), memory_for(self._work.path)
        if free is None and memory is None:
            return
        count = len(self.shape.files) if self.journal.resumed else 0
        there = sum(_allocated(self.file_path(n)) for n in range(count))
        lengths = self.manifest.lengths
        zeros = self.hollow()
        listed = sum(lengths[c] for c in set(self.journal.chunks or ()) - zeros if c < self.manifest.chunks)
        needed = self.shape.size - sum(lengths[c] for c in zeros) - max(there, listed)
        if free is not None and needed > free:
            raise StorageError(path=self.path, detail=f"no space left: {needed} bytes are needed, {free} are free")
        if memory is not None and needed > memory:
            detail = f"too little memory is left: files there are memory, {needed} bytes are needed, {memory} are left"
            raise StorageError(path=self.path, detail=detail)

    def hollow(self) -> set[int]:
        """Chunks that need no room."""
        return set(repeats_of(self.manifest).zeros)

    def file_path(self, number: int) -> Path:
        """Where the file of that number is while the destination is partial."""
        return self.files.path(number)

    def recheck(self, cancelled: threading.Event) -> None:
        """Hash the chunks that the journal lists, in parallel; those that match are verified, the others forgotten."""
        listed = sorted({c for c in self.journal.chunks or () if c < self.manifest.chunks and c not in self.verified})
        if not listed:
            return
        self.steps.begin("resuming", sum(self.manifest.lengths[chunk] for chunk in listed), "B")
        good: list[int] = []
        local = threading.local()

        def check(first: int, last: int, _: int) -> None:
            if not hasattr(local, "buffer"):
                local.buffer = memoryview(bytearray(READ_BYTES))
            for index in range(first, last):
                if cancelled.is_set():
                    raise Interrupted(detail="checking what is there was cancelled")
                chunk = self.manifest.chunk(listed[index])
                if self.matches(self.stored(chunk.number), local.buffer):
                    good.append(chunk.number)
                self.steps.add(chunk.length)

        step = 64
        tasks = ((first, min(first + step, len(listed)), 0) for first in range(0, len(listed), step))
        run_tasks(tasks, check, os.cpu_count() or 1, cancelled)
        if len(good) != len(listed):
            self.journal.restart(good, self.shape.digest, self.name)
        self.verified.update(good)

    def stored(self, number: int) -> Chunk:
        """What is kept of a chunk: in which file of the partial form, where, and what its digest must be."""
        return self.manifest.chunk(number)

    def chunks_in(self, file: int) -> Iterable[int]:
        """The chunks of which anything is in that file of the partial form."""
        return range(*self.manifest.first_chunks[file : file + 2])

    def head_is_right(self, file: int, descriptor: int) -> bool:  # noqa: ARG002 - an object's files are all chunks
        """Whether what a file begins with is right, where that is of no chunk. Raises ``OSError``."""
        return True

    def matches(self, chunk: Chunk, buffer: memoryview) -> bool:
        """Whether the chunk's bytes in the partial form are right."""
        descriptor = self.files.borrow(chunk.file)
        try:
            return self._is_right(chunk, descriptor, buffer)
        finally:
            self.files.give_back(chunk.file)

    def _is_right(self, chunk: Chunk, descriptor: int, buffer: memoryview) -> bool:
        hashed = self.new_hasher()
        path = str(self.file_path(chunk.file))
        try:
            hash_range(descriptor, chunk.file_offset, chunk.length, hashed.update, buffer, path)
        except SourceChanged:
            return False
        return hashed.digest() == chunk.digest

    def sink(self, run: range, scratch: memoryview) -> FileSink:
        """See ``Destination.sink``."""
        return FileSink(self, run, scratch)

    def place(self, run: range) -> Region | None:  # noqa: ARG002 - none of it is memory
        """See ``Destination.place``."""
        return None

    def copy(self, chunk: Chunk, sink: RunSink) -> None:
        """See ``Destination.copy``."""
        descriptor = self.files.borrow(chunk.file)
        try:
            read_chunk(descriptor, chunk.file_offset, chunk.length, sink, str(self.file_path(chunk.file)))
        finally:
            self.files.give_back(chunk.file)

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
        spans = FileSpans(str(self.part), self.manifest.columns.paths, self.manifest.columns.sizes)
        return FilesBuffer(self.manifest.digest, spans, servable=servable)

    def finish(self) -> Sequence[FileSpan]:
        """Set modes, sync, and give the partial form its final name. Returns the final files with their stamps.

        Before, it is proven that what gets the name is what was written; what somebody else can have written to is
        hashed again. Raises ``DestinationExists`` when something appeared there meanwhile, ``ForeignFile`` for what
        appeared in the partial form, ``PartChanged``, what ``check`` raises, or ``StorageError``; the partial form then
        stays, and the same get goes on from it.
        """
        if not self.writers.stop(ABORT_SECONDS):
            raise StorageError(path=self.part, detail=f"a write has not ended for {ABORT_SECONDS:g} s")
        try:
            if not self._work.still_there():
                raise StorageError(path=self._work.path, detail="it was moved or removed while a get worked in it")
            self.steps.begin("finishing")
            self.files.settle()
            self._clear(self.files.in_doubt())
            part_tree.make_durable(self.files, self.shape, self.part, self._work.path, self.steps)
            self.steps.begin("finishing")
            stamps, changed = self.files.stamps()
            if changed:
                self._clear(changed)
                stamps, changed = self.files.stamps()
                if changed:
                    raise PartChanged(path=self.file_path(changed[0]))
            moved = self._put_in_place()
        except FileExistsError:
            raise taken(self.path) from None
        except OSError as error:
            raise StorageError(path=error.filename or self.path, detail=words(error)) from None
        self.made_root = not (self._target.fill or (moved and self.shape.kind == "directory"))
        self._work.remove()  # before it is let go of: then it might be another get's
        self.writers.end(0)
        files = self.shape.columns
        if moved:
            stamps = renamed(self.path, files.paths, stamps)
        return FileSpans(str(self.path), files.paths, files.sizes, stamps)

    def _put_in_place(self) -> bool:
        """Give the partial form its final name. Returns whether its files were renamed, not just their directory."""
        filling = self._work.filling
        if self.force or filling:
            self._check()
        if self._target.fill:
            if not (self.force or filling) and any(entries(self.path)):
                raise DestinationExists(path=self.path)
            fill(self._work, self.path, self.shape, force=self.force)
            sync_directory(self.path)
            return True
        filled = place(self._work, self.path, self.shape, force=self.force)
        sync_directory(self.path.parent)
        return filled or self.shape.kind == "file"

    def _clear(self, doubted: list[int]) -> None:
        """Hash these files again.

        Raises ``PartChanged`` for what is wrong, which is then to be brought again, and for what is written meanwhile.
        """
        wrong: set[int] = set()
        buffer = memoryview(bytearray(READ_BYTES)) if doubted else memoryview(b"")
        for number in doubted:
            log.warning("%s may have been written to by another program: it is hashed again", self.file_path(number))
            descriptor = self.files.open_to_read(number)
            try:
                self.files.before_clearing(number, descriptor)
                for index in self.chunks_in(number):
                    if self._cancelled.is_set():
                        raise Interrupted(detail="checking what was brought was cancelled")
                    if not self._is_right(self.stored(index), descriptor, buffer):
                        wrong.add(index)
                if not (self.head_is_right(number, descriptor) and self.files.cleared(number, descriptor)):
                    raise PartChanged(path=self.file_path(number))
            finally:
                system.close(descriptor)
        if wrong:
            good = [chunk for chunk in self.verified if chunk not in wrong]
            self.journal.restart(good, self.shape.digest, self.name)
            raise PartChanged(path=self.file_path(self.stored(min(wrong)).file))

    def abort(self, timeout: float = ABORT_SECONDS) -> bool:
        """See ``Destination.abort``: unlock; what is there stays, for the next get to go on from."""
        return self.writers.end(timeout)

    def _let_go(self) -> None:
        self.files.close()
        self._work.let_go()


def _allocated(path: Path) -> int:
    try:
        return allocated(system.lstat(path)) or 0
    except OSError:
        return 0
