"""How chunks are received into files: hashed while they are hot, written, and compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from engine.files.refusals import refused
from engine.files.system import system
from engine.files.writing import write_at
from p2pstore.errors import SourceChanged, StorageError
from p2pstore.objects.file_system import clone_range, words
from p2pstore.objects.hashing import Hasher
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.repeats import BLOCK
from p2pstore.objects.tasks import hash_range
from p2pstore.pull.destination import Mismatch
from p2pstore.pull.part_files import PartFiles
from p2pstore.pull.writers import Writers


class PartialForm(Protocol):
    """The files that are written, as their sinks see them."""

    manifest: Manifest
    part: Path
    writers: Writers
    new_hasher: Callable[[], Hasher]
    clones: bool
    files: PartFiles


class PartialFormSink:
    """What sinks into such files share: one of the files open at a time, until the sink is closed."""

    def __init__(self, destination: PartialForm, run: range, scratch: memoryview) -> None:
        self.kept = 0
        self._part = destination.part
        self._files = destination.files
        self._run = run
        self._scratch = scratch
        self._file = -1
        self._descriptor = -1
        self._writers = destination.writers
        self._writers.enter()
        self._open = True

    def _open_to_write(self, file: int) -> None:
        """Have the descriptor of a file, which is written next."""
        if file != self._file:
            self._close_file()
            self._descriptor = self._files.borrow(file)
            self._file = file
        self._files.before_write(file, self._descriptor)

    def _write(self, data: memoryview, file: int, at: int) -> None:
        self._open_to_write(file)
        try:
            write_at(self._descriptor, data, at)
        except OSError as error:
            raise StorageError(path=self._part, detail=words(error)) from None

    def close(self) -> None:
        """See ``RunSink.close``."""
        if self._open:
            self._open = False
            try:
                self._close_file()
            finally:
                self._writers.leave()

    def _close_file(self) -> None:
        if self._descriptor >= 0:
            number, self._file, self._descriptor = self._file, -1, -1
            self._files.give_back(number)


class FileSink(PartialFormSink):
    """Takes the bytes of adjacent chunks: hashes while they are hot, writes them, and compares each digest.

    What comes in little is held in the scratch buffer until that is full, or the chunk is whole: the shorter a write,
    the more each of its bytes costs, and file systems like those best that begin and end at round places.

    See ``RunSink``.
    """

    def __init__(self, destination: PartialForm, run: range, scratch: memoryview) -> None:
        super().__init__(destination, run, scratch)
        self._destination = destination
        self._sizes = destination.manifest.columns.sizes
        self._held = 0  # bytes in the scratch buffer that are neither hashed nor written yet
        self._begin()

    def _begin(self) -> None:
        self._chunk = self._destination.manifest.chunk(self._run[self.kept])
        self._done = 0
        self._hashed = self._destination.new_hasher()

    def buffer(self, remaining: int) -> memoryview:
        """Room for what comes next, of this chunk and of those behind it, as far as the scratch buffer goes."""
        self._writers.check()
        return self._scratch[self._held : min(self._most(), self._held + remaining)]

    def filled(self, count: int) -> None:
        """Hash and write what arrived, once it is enough. Raises ``Mismatch`` or ``StorageError``."""
        self._held += count
        if self._held >= min(self._most(), self._chunk.length - self._done):
            self._take_held()

    def take(self, data: memoryview) -> None:
        """See ``TakingSink.take``. Raises as ``filled``, and ``Interrupted``."""
        self._writers.check()
        self._take_held()
        self._take(data)

    def _most(self) -> int:
        """Bytes of the scratch buffer that are used: so many that the next write after it begins at a round place."""
        size = len(self._scratch)
        return size - self._at % size

    def _take_held(self) -> None:
        held, self._held = self._held, 0
        self._take(self._scratch[:held])

    def _take(self, data: memoryview) -> None:
        at, end = 0, len(data)
        while at < end:
            count = min(end - at, self._chunk.length - self._done)
            self._store(data[at : at + count])
            at += count

    def _store(self, data: memoryview) -> None:
        """Hash and write bytes of one chunk."""
        count = len(data)
        self._hashed.update(data)
        number = self._chunk.file
        if not (count == self._sizes[number] and self._files.write_whole(number, data)):
            self._write(data, number, self._at)
        self._advance(count)

    def clone(self, descriptor: int, offset: int, remaining: int) -> int:
        """See ``CloningSink.clone``: up to the end of the chunk. What is hashed is what now lies in our own file.

        Blocks are shared as a whole: what of a chunk is less than one, at its ends, is copied.
        """
        self._writers.check()
        destination = self._destination
        count = min(self._chunk.length - self._done, remaining)
        if not destination.clones or self._held or (offset - self._at) % BLOCK:
            return 0
        self._open_to_write(self._chunk.file)
        end = self._at + count
        head, tail = -self._at % BLOCK, end % BLOCK if end < self._sizes[self._file] else 0
        if head + tail >= count:
            head, tail = count, 0
        shared = count - head - tail
        if shared and not clone_range(descriptor, offset + head, shared, self._descriptor, self._at + head):
            destination.clones = False
            return 0
        if not (self._copied(descriptor, offset, 0, head) and self._copied(descriptor, offset, head + shared, tail)):
            return 0
        path = str(self._files.path(self._file))
        try:
            hash_range(self._descriptor, self._at, count, self._hashed.update, self._scratch, path)
        except SourceChanged as error:  # our own file was cut short by somebody
            raise StorageError(path=path, detail=error.fields["detail"]) from None
        self._advance(count)
        return count

    def _copied(self, descriptor: int, offset: int, skip: int, count: int) -> bool:
        """Copy some bytes of the source, ``skip`` after ``offset``, to where they belong; false where it lacks them."""
        if not count:
            return True
        try:
            data = system.pread(descriptor, count, offset + skip)
        except OSError:  # as with ``clone_range``: whoever then reads the source tells what is wrong with it
            return False
        try:
            write_at(self._descriptor, memoryview(data), self._at + skip)
        except OSError as error:
            raise StorageError(path=self._part, detail=words(error)) from None
        return len(data) == count

    def hole(self, remaining: int) -> int:
        """See ``HollowSink.hole``: old bytes go, and what is there is read back."""
        self._writers.check()
        count = self._chunk.length - self._done
        if self._done or self._held or count > remaining:
            return 0
        self._open_to_write(self._chunk.file)
        path = str(self._files.path(self._file))
        try:
            system.punch(self._descriptor, self._at, count)
        except OSError as error:
            if not refused("punch", error, path):
                raise StorageError(path=path, detail=words(error)) from None
        hashed = self._destination.new_hasher()
        try:
            hash_range(self._descriptor, self._at, count, hashed.update, self._scratch, path)
        except SourceChanged:  # the file is not as long yet
            return 0
        if hashed.digest() != self._chunk.digest:
            return 0
        self._hashed = hashed
        self._advance(count)
        return count

    @property
    def _at(self) -> int:
        """Where the next byte goes, in its file."""
        return self._chunk.file_offset + self._done

    def _advance(self, count: int) -> None:
        self._done += count
        if self._done == self._chunk.length:
            if self._hashed.digest() != self._chunk.digest:
                raise Mismatch(self._chunk.number)
            self.kept += 1
            if self.kept < len(self._run):
                self._begin()
