"""What can be registered: memory that this process holds, and files (many of them as one buffer)."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, TypeVar

from engine import forks
from engine.errors import MooncakeError, SourceChanged, StorageError, UsageError
from engine.files.stamps import FileStamp, pack_stamp
from engine.files.system import system
from engine.memory.file_spans import FileSpan, FileSpans
from engine.memory.lent import byte_view
from engine.memory.open_files import DescriptorCache, OpenFile
from engine.memory.reading import OWN_LIMITS, TooShort, Unreadable, read_into
from engine.memory.sending import send_file

if TYPE_CHECKING:
    import socket

    from typing_extensions import Buffer as Exporter

SMALL_BYTES = 64 * 1024
"""Parts of files that are smaller are read together up to so many bytes, and sent in one call."""

MANY_FILES = 16
"""In a range of more files than this, those that are stamped are looked at without being opened for it."""

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""O_NONBLOCK: should a FIFO stand there by now, opening it must not wait for a writer."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FileRun:
    """``length`` bytes at ``offset`` of an open file. The receiver owns ``fd`` and closes it."""

    fd: int
    offset: int
    length: int


class Buffer(ABC):
    """``length`` bytes that peers may read, and write only where ``writable`` is true. All methods are thread-safe."""

    name: str
    length: int
    writable: bool = False
    settled: bool = True
    """Whether what peers may read lies where it will stay: false while a replica is still being written."""

    def ready(self, offset: int, length: int) -> bool:  # noqa: ARG002 - memory is always ready
        """Whether the range, which lies inside the buffer, may be served now."""
        return True

    @abstractmethod
    def send(self, sock: socket.socket, offset: int, length: int) -> int:
        """Write the range, or its beginning, to a socket; how many bytes that were, at least 1.

        Raises ``OSError`` for the socket (``BlockingIOError`` when it took nothing within its send timeout),
        ``SourceChanged`` or ``StorageError`` for a file.
        """

    @abstractmethod
    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` with the bytes at ``offset``. Raises ``SourceChanged`` or ``StorageError``."""

    def file_run(self, offset: int, length: int) -> FileRun | None:  # noqa: ARG002 - memory has no file
        """The first part of the range that lies in one file, for a peer on this host; None where there is no file.

        Raises ``SourceChanged`` or ``StorageError``.
        """
        return None

    def view(self, offset: int, length: int) -> memoryview | None:  # noqa: ARG002 - files have none
        """The range as memory, read-only where that memory is; None for a file. The caller releases it."""
        return None

    def memory_run(self, offset: int, length: int) -> memoryview | None:
        """The first part of the range that is one piece of memory; None for a file. The caller releases it."""
        return self.view(offset, length)

    def rooms(self, offset: int, length: int) -> list[memoryview] | None:  # noqa: ARG002 - most are in one piece
        """The range as several pieces of memory to be filled in order; None where it has none. See ``JoinedBuffer``."""
        return None

    def write_from(self, offset: int, view: memoryview) -> None:  # noqa: ARG002 - most are memory or read-only
        """Store ``view`` at ``offset`` of a writable buffer that is no memory. Raises ``StorageError``."""
        raise UsageError(detail=f"buffer {self.name!r} is read-only")

    @abstractmethod
    def close(self) -> None:
        """Let go of memory or files; twice is harmless. The address space calls it when the last user has left."""


class MemoryBuffer(Buffer):
    """The memory of an object, which is kept alive as long as the buffer is open."""

    def __init__(self, name: str, data: Exporter, *, writable: bool = False) -> None:
        """``data`` is what ``lent.byte_view`` takes, writable itself if peers may write. Raises ``UsageError``."""
        self.name = name
        self.writable = writable
        self._view = byte_view(data, f"buffer {name!r}", writable=writable)
        self.length = len(self._view)

    def send(self, sock: socket.socket, offset: int, length: int) -> int:
        """See ``Buffer.send``."""
        return sock.send(self._view[offset : offset + length])

    def read_into(self, offset: int, view: memoryview) -> None:
        """See ``Buffer.read_into``."""
        view[:] = self._view[offset : offset + len(view)]

    def view(self, offset: int, length: int) -> memoryview | None:
        """See ``Buffer.view``."""
        return self._view[offset : offset + length]

    def close(self) -> None:
        """Release the memory; its owner may resize it from then on."""
        self._view.release()


class FilesBuffer(Buffer):
    """The concatenation of files, read-only. A directory object is one such buffer.

    Files are opened when they are needed, and compared with their stamps at every use: a range that touches a changed
    file is refused, and ``on_changed(path, detail)`` is called, once a file, from the thread that noticed.
    Where a file cannot be read, a broken disk's say, ``on_unreadable(path, offset, detail)`` is called likewise.
    ``servable(offset, length)`` is asked before each use; a replica that is still incomplete refuses with it what it
    has not verified.
    """

    def __init__(
        self,
        name: str,
        spans: Sequence[FileSpan],
        *,
        servable: Callable[[int, int], bool] | None = None,
        on_changed: Callable[[str, str], None] | None = None,
        on_unreadable: Callable[[str, int, str], None] | None = None,
    ) -> None:
        self.name = name
        self._spans = spans if isinstance(spans, FileSpans) else tuple(spans)
        sizes = spans.sizes if isinstance(spans, FileSpans) else [span.size for span in spans]
        self._starts = array("Q", itertools.accumulate(sizes, initial=0))
        self.length = self._starts[-1]
        self._servable = servable
        self.settled = servable is None
        self._on_changed = on_changed
        self._on_unreadable = on_unreadable
        self._reported: set[int] = set()
        self._lock = threading.Lock()
        self._owner = next(_OWNERS)

    def ready(self, offset: int, length: int) -> bool:
        """See ``Buffer.ready``."""
        if self._servable is not None and not self._servable(offset, length):
            return False
        try:
            for number, (index, _, _) in enumerate(self._runs(offset, length)):
                if number < MANY_FILES or not self._looks_the_same(index):
                    _CACHE.release(self._acquire(index))
        except MooncakeError:
            return False
        return True

    def send(self, sock: socket.socket, offset: int, length: int) -> int:
        """See ``Buffer.send``."""
        for index, at, count in self._runs(offset, length):
            if count < min(length, SMALL_BYTES):
                return sock.send(self._gathered(offset, min(length, SMALL_BYTES)))

            def work(fd: int, at: int = at, count: int = count) -> int:
                return send_file(sock, fd, at, count)

            sent = self._use(index, at, work)
            if not sent:
                self._fail(index, "it became shorter")
            return sent
        return 0

    def read_into(self, offset: int, view: memoryview) -> None:
        """See ``Buffer.read_into``."""
        done = 0
        for index, start, count in self._runs(offset, len(view)):

            def work(fd: int, start: int = start, part: memoryview = view[done : done + count]) -> None:
                read_into(fd, start, part)

            try:
                self._use(index, start, work)
            except TooShort:
                self._fail(index, "it became shorter")
            done += count

    def file_run(self, offset: int, length: int) -> FileRun | None:
        """See ``Buffer.file_run``."""
        for index, at, count in self._runs(offset, length):
            file = self._acquire(index)
            try:
                return FileRun(os.dup(file.fd), at, count)
            finally:
                _CACHE.release(file)
        return None

    def close(self) -> None:
        """Close the files; those in use are closed by their last user."""
        _CACHE.discard(self._owner)

    def _runs(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(span, offset in its file, bytes) of each file that the range touches; empty files are passed over."""
        index = bisect_right(self._starts, offset) - 1
        starts, end = self._starts, offset + length
        while offset < end:
            start, stop = starts[index], starts[index + 1]
            count = min(end, stop) - offset
            if count:
                yield index, offset - start, count
            offset += count
            index += 1

    def _gathered(self, offset: int, length: int) -> bytearray:
        """The first bytes of a range of several files, up to a file that is large or cannot be read."""
        data = bytearray()
        for index, at, count in self._runs(offset, length):
            try:
                data += self._small(index, at, count)
            except MooncakeError:
                if not data:
                    raise
                break  # it is told when it is that file's turn
        return data

    def _small(self, index: int, at: int, count: int) -> bytes | bytearray:
        """Bytes of a file that is not kept open, since it is one of many. Raises as ``_acquire``."""
        stamp = self._stamp(index)
        try:
            fd = system.open(self._path(index), _OPEN)
            try:
                status = system.fstat(fd)
                same = pack_stamp(status) == stamp if stamp else stat.S_ISREG(status.st_mode)
                data = system.pread(fd, count, at) if same else b""
            finally:
                system.close(fd)
        except OSError:
            data = b""
        if len(data) == count:
            return data
        whole = bytearray(count)
        self.read_into(self._starts[index] + at, memoryview(whole))  # which tries again, and says what is wrong
        return whole

    def _looks_the_same(self, index: int) -> bool:
        """Whether a file has its stamp to the bit: else it must be looked at more closely."""
        try:
            return pack_stamp(system.stat(self._path(index))) == self._stamp(index)
        except OSError:
            return False

    def _path(self, index: int) -> str:
        return self._spans.path(index) if isinstance(self._spans, FileSpans) else self._spans[index].path

    def _stamp(self, index: int) -> bytes:
        """Packed; empty where the file has none."""
        if isinstance(self._spans, FileSpans):
            return self._spans.stamp(index)
        stamp = self._spans[index].stamp
        return stamp.packed() if stamp is not None else b""

    def _use(self, index: int, at: int, work: Callable[[int], T]) -> T:
        """Have ``work`` read a file from ``at`` on, by its descriptor; by a new one when that went stale (NFS)."""
        for last in (False, True):
            file = self._acquire(index)
            try:
                return work(file.fd)
            except Unreadable as error:
                if last or error.errno != errno.ESTALE:
                    raise self._unreadable(index, at, error) from None
                _CACHE.drop(file)
            finally:
                _CACHE.release(file)
        raise AssertionError("a file is tried twice")

    def _acquire(self, index: int) -> OpenFile:
        span = self._spans[index]
        try:
            file = _CACHE.acquire((self._owner, index), span.path)
            if span.stamp is None:
                return file
            file, status = self._looked_at(index, file)
        except SourceChanged as error:
            self._fail(index, str(error.fields["detail"]))
        except OSError as error:
            raise self._unreadable(index, 0, error) from None
        found = FileStamp.of(status)
        if found != span.stamp and not span.stamp.fits(found):
            _CACHE.release(file)
            self._fail(index, _difference(span.stamp, found))
        return file

    def _looked_at(self, index: int, file: OpenFile) -> tuple[OpenFile, os.stat_result]:
        """An open file, opened anew when it went stale, and what fstat says of it. Raises ``OSError``."""
        try:
            return file, system.fstat(file.fd)
        except OSError as error:
            if error.errno == errno.ESTALE:
                _CACHE.drop(file)
            _CACHE.release(file)
            if error.errno != errno.ESTALE:
                raise
        file = _CACHE.acquire((self._owner, index), self._spans[index].path)
        try:
            return file, system.fstat(file.fd)
        except OSError:
            _CACHE.release(file)
            raise

    def _unreadable(self, index: int, at: int, error: OSError) -> StorageError:
        """Report what keeps a file from being read, unless it is a limit of our own."""
        path, detail = self._spans[index].path, error.strerror or str(error)
        if error.errno not in OWN_LIMITS and self._on_unreadable is not None:
            self._on_unreadable(path, at, detail)
        return StorageError(path=path, detail=detail)

    def _fail(self, index: int, detail: str) -> NoReturn:
        path = self._spans[index].path
        with self._lock:
            first = index not in self._reported
            self._reported.add(index)
        if first and self._on_changed is not None:
            self._on_changed(path, detail)
        raise SourceChanged(path=path, detail=detail)


def _difference(before: FileStamp, now: FileStamp) -> str:
    if (before.dev, before.inode) != (now.dev, now.inode):
        return "another file stands there"
    if before.size != now.size:
        return f"it had {before.size} bytes and has {now.size}"
    return "it was written to"


_CACHE = DescriptorCache()
forks.ask_at_fork(_CACHE)
forks.renew_at_fork(_CACHE.renew)
_OWNERS = itertools.count()
