"""The owner's side of memory: registers what is asked for, in bounded pieces, and gives out the keys.

A file is never registered whole: 140 GB would be read in and pinned. A grant covers what a reader is about to read, and
what it needs is registered in windows of ``WINDOW`` bytes, which stay registered while others may want them and there
is room. All is registered to be read only, so that memory, tmpfs and files on disk serve in place.

Files that are still being written (a partial replica) are registered in just the range that was granted, and not kept:
sharing blocks with another file gives a file new pages, and a window made before would go on showing the old ones.
Runs of small files are copied together: one registration for each would cost more than the bytes.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING

from engine.errors import AddressError, LockedMemoryLimit, MooncakeError
from engine.memory.region import Region
from engine.net.threads import Failure, Threads
from engine.transports.rdma.pinned import PAGE, MappedFile, Pinned, Unmappable
from engine.transports.rdma.setup import MAX_EXTENTS, Extent
from engine.transports.rdma.verbs.interface import Access

if TYPE_CHECKING:
    from engine.memory.address_space import AddressSpace
    from engine.memory.buffers import Buffer
    from engine.transports.rdma.nics import RdmaNic

WINDOW = 16 << 20
"""Bytes of one registration: large enough to cost little a byte, small enough to be there soon."""

SMALL = 256 << 10
"""Files shorter than this are copied rather than registered, where a grant has several."""

MAX_GRANT = 64 << 20
"""Bytes of one grant; readers ask for less."""

AT_ONCE = 32
"""Windows that are deregistered while the caller waits."""

PINNED_SHARE = 4
"""One part in so many of this machine's memory may stay registered for nobody in particular."""

_SPACE_PAGES = 1 << 35
_FIRST_PAGE = 1 << 4


class _Piece:
    """One registration of a part of the buffer at ``base``, for ``users`` grants; without ``key`` it is not shared."""

    def __init__(self, key: Hashable | None, base: int, buffer: Buffer) -> None:
        self.key = key
        self.base = base
        self.buffer = buffer  # kept, so that no other one gets its identity, which is part of the key
        self.users = 0
        self.lock = threading.Lock()
        self.pinned: Pinned | None = None
        self.closed = False

    def close(self) -> None:
        """Deregister it, once nobody is registering it any more."""
        with self.lock:
            self.closed = True
            pinned, self.pinned = self.pinned, None
        if pinned is not None:
            pinned.close()


class Owner:
    """The registrations and grants of one segment. Thread-safe."""

    def __init__(self, space: AddressSpace, *, remaps: bool, budget: int | None = None) -> None:
        """``remaps``: regions can be named by addresses that tell nothing of this process.

        ``budget`` are the bytes that stay registered without a grant; by default a quarter of this machine's memory.
        """
        self.bytes_granted = 0
        self._space = space
        self._remaps = remaps
        self._budget = _memory() // PINNED_SHARE if budget is None else budget
        self._lock = threading.Lock()
        self._pieces: dict[Hashable, _Piece] = {}
        self._idle: OrderedDict[Hashable, int] = OrderedDict()
        self._idle_bytes = 0
        self._grants: dict[int, tuple[int, list[_Piece]]] = {}
        self._numbers = itertools.count(1)
        self._threads = Threads()

    def grant(self, address: int, length: int, nics: Sequence[RdmaNic]) -> tuple[int, list[Extent]]:
        """The number of a new grant of the range, and its extents, registered on ``nics``.

        Raises ``AddressError`` where the range is not served, ``LockedMemoryLimit``, ``VerbsFailed``, and what files
        raise: ``SourceChanged``, ``StorageError``.
        """
        if length > MAX_GRANT:
            raise AddressError(address=address, length=length)
        pieces: list[_Piece] = []
        extents: list[Extent] = []
        number = next(self._numbers)
        with self._space.resolve(address, length) as lease:
            base = address - lease.offset
            try:
                for piece, skew, count in self._cut(lease.buffer, base, lease.offset, length, nics):
                    pieces.append(piece)
                    extents.append(_extent(piece, skew, count, len(extents)))
            except BaseException:
                self._drop(pieces)
                raise
            with self._lock:
                self._grants[number] = base, pieces
                self.bytes_granted += length
        try:
            # It may have been withdrawn since; ``withdraw`` then knew nothing of this grant.
            self._space.resolve(address, length).release()
        except AddressError:
            self.release(number)
            raise
        return number, extents

    def release(self, number: int) -> None:
        """A grant is over. One that is not there was withdrawn."""
        with self._lock:
            found = self._grants.pop(number, None)
        if found is not None:
            self._drop(found[1])

    def withdraw(self, base: int) -> None:
        """The buffer at ``base`` is served no more: take its grants back; whoever reads on is refused by the device.

        Memory is let go before this returns. Many windows of files that nobody reads are left to a thread, since
        deregistering them takes a millisecond each.
        """
        with self._lock:
            numbers = [number for number, (address, _) in self._grants.items() if address == base]
            pieces = {piece for number in numbers for piece in self._grants.pop(number)[1]}
            idle = {piece for piece in self._pieces.values() if piece.base == base} - pieces
            for piece in pieces | idle:
                self._forget(piece)
        files = [piece for piece in idle if piece.pinned is not None and isinstance(piece.pinned.memory, MappedFile)]
        if len(files) <= AT_ONCE:
            files = []
        for piece in (pieces | idle) - set(files):
            piece.close()
        if files and self._threads.start("RDMA release", _close_all, files) is None:
            _close_all(files)

    def replaced(self, base: int) -> None:
        """Another buffer is served at ``base``: keep nothing of the old one that no grant is using."""
        with self._lock:
            pieces = [self._pieces[key] for key in self._idle if self._pieces[key].base == base]
            for piece in pieces:
                self._forget(piece)
        for piece in pieces:
            piece.close()

    def close(self) -> None:
        """Take everything back."""
        with self._lock:
            pieces = list(self._pieces.values())
            pieces += [piece for _, held in self._grants.values() for piece in held]
            self._grants.clear()
            self._pieces.clear()
            self._idle.clear()
            self._idle_bytes = 0
        for piece in pieces:
            piece.close()
        self._threads.stop()
        self._threads.join(None)  # the devices must not be closed under them

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What went wrong in threads that deregister."""
        return self._threads.failures

    @property
    def grants(self) -> int:
        """Grants that are out."""
        return len(self._grants)

    @property
    def pinned_bytes(self) -> int:
        """Bytes of the registrations that others may use again."""
        with self._lock:
            return sum(piece.pinned.length for piece in self._pieces.values() if piece.pinned is not None)

    # Pieces

    def _cut(
        self, buffer: Buffer, base: int, offset: int, length: int, nics: Sequence[RdmaNic]
    ) -> Iterator[tuple[_Piece, int, int]]:
        """(piece, where the range begins in it, how many of its bytes) for each piece of a range."""
        end = offset + length
        while offset < end:
            view = buffer.memory_run(offset, 1)
            if view is not None:
                view.release()
                found = self._memory(buffer, base, offset, end - offset, nics)
            elif (small := self._small(buffer, offset, end - offset)) is not None:
                found = self._piece(None, base, buffer, small, nics), 0, small.length
            else:
                found = self._file(buffer, base, offset, end - offset, nics)
            yield found
            offset += found[2]

    def _memory(
        self, buffer: Buffer, base: int, offset: int, length: int, nics: Sequence[RdmaNic]
    ) -> tuple[_Piece, int, int]:
        start = offset // WINDOW * WINDOW
        size = min(WINDOW, buffer.length - start)
        whole = _held(buffer, start, size)
        if whole.length == size:
            key = (base, id(buffer), start)
            return self._piece(key, base, buffer, whole, nics), offset - start, min(length, start + size - offset)
        whole.close()
        # Memory in several parts, one of which ends here: just what is asked for.
        part = _held(buffer, offset, min(length, WINDOW))
        return self._piece(None, base, buffer, part, nics), 0, part.length

    def _file(
        self, buffer: Buffer, base: int, offset: int, length: int, nics: Sequence[RdmaNic]
    ) -> tuple[_Piece, int, int]:
        run = buffer.file_run(offset, length)
        if run is None:  # memory of a GPU
            copied = _copied(buffer, offset, min(length, WINDOW))
            return self._piece(None, base, buffer, copied, nics), 0, copied.length
        try:
            if not buffer.settled:
                exact = MappedFile(run.fd, run.offset, min(run.length, WINDOW))
                return self._piece(None, base, buffer, exact, nics), 0, exact.length
            status = os.fstat(run.fd)
            start = run.offset // WINDOW * WINDOW
            size = min(WINDOW, status.st_size - start)
            key = (base, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size, start)
            piece = self._piece(key, base, buffer, MappedFile(run.fd, start, size), nics)
            return piece, run.offset - start, min(run.length, start + size - run.offset)
        except Unmappable:
            copied = _copied(buffer, offset, min(run.length, WINDOW))
            return self._piece(None, base, buffer, copied, nics), 0, copied.length
        finally:
            os.close(run.fd)

    def _small(self, buffer: Buffer, offset: int, length: int) -> Region | None:
        """A copy of the small files at the start of the range; None where it begins with a larger one, or has one."""
        count = 0
        runs = 0
        while count < length:
            run = buffer.file_run(offset + count, length - count)
            if run is None:
                break
            os.close(run.fd)
            if run.length > SMALL:
                break
            count += run.length
            runs += 1
        if runs < 2:
            return None
        return _copied(buffer, offset, count)

    def _piece(
        self, key: Hashable | None, base: int, buffer: Buffer, memory: Region | MappedFile, nics: Sequence[RdmaNic]
    ) -> _Piece:
        """The piece of that key, or a new one of ``memory``, registered, with one user more."""
        with self._lock:
            piece = self._pieces.get(key) if key is not None else None
            if piece is None:
                piece = _Piece(key, base, buffer)
                if key is not None:
                    self._pieces[key] = piece
            elif key is not None and key in self._idle:
                self._idle_bytes -= self._idle.pop(key)
            piece.users += 1
        try:
            with piece.lock:
                self._pin(piece, memory, nics)
        except BaseException:
            memory.close()
            self._drop([piece], keep=False)
            raise
        return piece

    def _pin(self, piece: _Piece, memory: Region | MappedFile, nics: Sequence[RdmaNic]) -> None:
        """Register a piece where that has not been done; its lock is held."""
        if piece.closed:  # it was withdrawn meanwhile
            raise AddressError(address=piece.base, length=memory.length)
        if piece.pinned is None:
            piece.pinned = Pinned(memory, Access.REMOTE_READ, remote=self._remote(memory.address))
        else:
            memory.close()
        self._register(piece.pinned, nics)

    def _register(self, pinned: Pinned, nics: Sequence[RdmaNic]) -> None:
        try:
            pinned.register(nics)
        except LockedMemoryLimit:
            if not self._trim(0):
                raise
            pinned.register(nics)

    def _remote(self, address: int) -> int | None:
        """An address that tells nothing of this process, and agrees with ``address`` within the page."""
        if not self._remaps:
            return None
        return (_FIRST_PAGE + secrets.randbelow(_SPACE_PAGES - _FIRST_PAGE)) * PAGE + address % PAGE

    def _drop(self, pieces: Sequence[_Piece], *, keep: bool = True) -> None:
        """One user of each of these less."""
        unused = []
        with self._lock:
            for piece in pieces:
                piece.users -= 1
                if piece.users:
                    continue
                if keep and piece.pinned is not None and self._known(piece):
                    self._idle[piece.key] = piece.pinned.length
                    self._idle_bytes += piece.pinned.length
                else:
                    self._forget(piece)
                    unused.append(piece)
        for piece in unused:
            piece.close()
        self._trim(self._budget)

    def _trim(self, budget: int) -> bool:
        """Deregister what nobody uses, the oldest first, until ``budget`` bytes are left; whether there was any."""
        unused = []
        with self._lock:
            while self._idle and self._idle_bytes > budget:
                piece = self._pieces[next(iter(self._idle))]
                self._forget(piece)
                unused.append(piece)
        for piece in unused:
            with contextlib.suppress(MooncakeError):
                piece.close()
        return bool(unused)

    def _known(self, piece: _Piece) -> bool:
        return piece.key is not None and self._pieces.get(piece.key) is piece

    def _forget(self, piece: _Piece) -> None:
        """Nobody is to find it any more; the lock is held."""
        if self._known(piece):
            del self._pieces[piece.key]
            self._idle_bytes -= self._idle.pop(piece.key, 0)


def _close_all(pieces: Sequence[_Piece]) -> None:
    for piece in pieces:
        with contextlib.suppress(MooncakeError):
            piece.close()


def _extent(piece: _Piece, skew: int, count: int, before: int) -> Extent:
    pinned = piece.pinned
    if pinned is None or before >= MAX_EXTENTS:  # it was withdrawn meanwhile; or there are too many small pieces
        raise AddressError(address=piece.base, length=count)
    return Extent(count, pinned.remote + skew, pinned.rkeys())


def _held(buffer: Buffer, offset: int, length: int) -> Region:
    view = buffer.memory_run(offset, length)
    assert view is not None  # noqa: S101 - it was memory a moment ago
    with view:
        return Region.of(view)


def _memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _copied(buffer: Buffer, offset: int, length: int) -> Region:
    """Bytes of a buffer in memory of our own."""
    room = memoryview(mmap.mmap(-1, length))
    buffer.read_into(offset, room)
    return Region.of(room)
