"""The log of values in a directory: one file, one descriptor, written by one thread at a time and read by many.

``kill -9`` at any moment leaves values that are whole, or not there: a record's header is written before its value,
over the header of what was there, and the newest record is read when the file is opened. After a power cut the last
ones may be torn; what is read is compared with its checksum always, and nothing but what was written comes out.

Direct I/O, since what is read here twice goes back to memory and need not be in the kernel's, too; it is quicker, as
well (``benchmarks/disk_tier.py``). Where a file system refuses it the kernel's cache is used.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import xxhash

from engine.files.refusals import refused
from engine.files.system import system
from engine.files.writing import write_at
from engine.memory.copying import copy
from p2pstore.errors import UsageError
from p2pstore.kv.errors import TierUnusable
from p2pstore.kv.tiers.opening import locked, opened
from p2pstore.kv.tiers.records import BLOCK, HEADER_BYTES, SALT_BYTES, Header, first_block, packed, read, salt_of
from p2pstore.kv.tiers.ring import Place, Plan, Ring
from p2pstore.objects.file_system import words

MIN_LIMIT = 256 << 10
"""Bytes: a smaller limit is a slip, a size in MiB, say."""

CHUNK = 4 << 20
"""Bytes that are read or written by one call: more makes it no quicker, and each call has memory of its own for it."""

MAX_IDLE = 8
"""Pieces of such memory that are kept for the next calls."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

VALUES = "values.log"

log = logging.getLogger(__name__)


class Written(NamedTuple):
    """What became of a write: the keys of the values that went for it, and why it failed, in words, if it did."""

    left: list[str]
    why: str = ""


class Log:
    """The values in ``directory``, in at most ``limit`` bytes. Thread-safe; ``load`` comes before everything else."""

    def __init__(self, directory: Path, limit: int, *, direct: bool = True) -> None:
        """Make the directory and take it for this process.

        Raises ``TierTaken`` where another process has it, ``TierUnusable`` where it cannot be used, ``UsageError``.
        """
        if limit < MIN_LIMIT:
            raise UsageError(detail=f"{limit} bytes on disk; give at least {MIN_LIMIT}")
        self.directory = directory
        self.damaged = 0
        """Values that could not be read, or not as they were written."""
        self._path = directory / VALUES
        self._ring = Ring(limit)
        self._guard = threading.Lock()  # of the ring
        self._writing = threading.Lock()
        self._idle: deque[mmap.mmap] = deque(maxlen=MAX_IDLE)
        self._descriptor = -1
        self._lock_descriptor, self._lock = locked(directory)
        try:
            self._descriptor, self.direct = opened(self._path, direct=direct)
            self._salt = self._begun()
            self._length = system.fstat(self._descriptor).st_size
        except BaseException as error:
            self.close()
            if isinstance(error, (OSError, ValueError)):
                raise self._unusable(error) from None
            raise

    # -- what is there

    def load(self, ended: Callable[[], bool] = lambda: False) -> None:
        """Find the records of the file, one read each; ``ended`` breaks it off. Raises ``TierUnusable``."""
        try:
            found = self._records(ended)
            with self._guard:
                gone = self._ring.restore(found)
                newest = self._ring.newest
            for place in gone:
                self._erase(place)
            if newest is not None and not self._is_whole(newest):
                with contextlib.suppress(OSError):  # else its checksum tells
                    self._erase(newest)
                with self._guard:
                    self._ring.take_back(newest)
            if self._length > self._ring.capacity:
                self._cut(self._ring.capacity)
        except OSError as error:
            raise self._unusable(error) from None

    def __len__(self) -> int:
        return len(self._ring.places)

    @property
    def stored(self) -> int:
        """Bytes of the values that are there."""
        with self._guard:
            return self._ring.stored

    @property
    def capacity(self) -> int:
        """Bytes that the file may have: less than the limit once the disk was full."""
        return self._ring.capacity

    def sizes(self) -> dict[str, int]:
        """The bytes of each value, by its key, the one that goes first in front."""
        with self._guard:
            places = sorted(self._ring.places.values(), key=lambda place: place.sequence)
        return {place.key: place.size for place in places}

    def size(self, key: str) -> int | None:
        """The bytes of a value; None where there is none."""
        place = self._ring.places.get(key)
        return None if place is None else place.size

    def holds(self, key: str, value: memoryview) -> bool:
        """Whether a value is there already, by size and checksum."""
        place = self._ring.places.get(key)
        return place is not None and place.size == len(value) and place.checksum == xxhash.xxh3_64_intdigest(value)

    # -- reading

    def read_into(self, key: str, view: memoryview) -> bool:
        """Fill ``view`` with a value of just that size; false where it is not there, or not whole any more."""
        place = self._ring.places.get(key)
        if place is None or place.size != len(view):
            return False
        try:
            if self._checksum(place, view) == place.checksum:
                return True
            why = "it is not what was written"
        except OSError as error:
            why = words(error)
        with self._guard:
            there = self._ring.forget(place)
        if there:  # else it was written over while it was read
            self.damaged += 1
            log.error("%r in %s cannot be read: %s", key, self._path, why)
        return False

    # -- writing

    def write(self, key: str, value: memoryview) -> Written:
        """Put a value in; what went for it, and why it was not written, if it was not. One of this key is replaced."""
        left: list[str] = []
        with self._writing:
            while True:
                with self._guard:
                    if not self._ring.fits(key, len(value)):
                        return Written(left, f"{len(value)} bytes under a key of {len(key)} characters do not fit")
                    plan = self._ring.plan(key, len(value))
                left += plan.left
                try:
                    self._write(plan, key, value)
                except OSError as error:
                    if error.errno not in FULL or plan.offset + plan.span <= self._length or not self._shrunk(plan):
                        return Written(left, words(error))
                else:
                    return Written([each for each in left if each != key])

    def clear(self) -> None:
        """Remove all. Raises ``TierUnusable``."""
        with self._writing:
            with self._guard:
                self._ring.clear()
            try:
                self._salt = self._begin()
                self._cut(BLOCK)
            except OSError as error:
                raise self._unusable(error) from None

    def close(self) -> None:
        """Let the directory go. Twice is harmless."""
        with self._writing:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                system.close(descriptor)
            lock, self._lock_descriptor = self._lock_descriptor, -1
            if lock >= 0:
                system.close(lock)
                self._lock.let_go()

    # -- how

    def _records(self, ended: Callable[[], bool]) -> list[tuple[int, Header]]:
        found: list[tuple[int, Header]] = []
        offset = BLOCK
        memory = self._memory()
        try:
            while offset + BLOCK <= self._length and not ended():
                if system.preadv(self._descriptor, [memoryview(memory)[:BLOCK]], offset) < BLOCK:
                    break
                header = read(memory[:BLOCK], self._salt, offset)
                if header is not None:
                    found.append((offset, header))
                offset += BLOCK if header is None else header.span
        finally:
            self._idle.append(memory)
        return found

    def _write(self, plan: Plan, key: str, value: memoryview) -> None:
        checksum = xxhash.xxh3_64_intdigest(value)
        written = xxhash.xxh3_64()
        head = packed(Header(key, len(value), plan.sequence, plan.floor, checksum), self._salt, plan.offset)
        memory = self._memory()
        try:
            room = memoryview(memory)
            room[: len(head)] = head
            filled, at, taken = len(head), plan.offset, 0
            while True:
                count = min(CHUNK - filled, len(value) - taken)
                piece = room[filled : filled + count]
                copy(piece, value[taken : taken + count])
                written.update(piece)
                taken, filled = taken + count, filled + count
                whole = -(-filled // BLOCK) * BLOCK
                room[filled:whole] = bytes(whole - filled)
                write_at(self._descriptor, room[:whole], at)
                at, filled = at + whole, 0
                if taken == len(value):
                    break
            _compare(written.intdigest(), checksum)
        except OSError:
            with contextlib.suppress(OSError):  # else its checksum tells
                self._erase(plan)
            raise
        finally:
            self._idle.append(memory)
        self._length = max(self._length, plan.offset + plan.span)
        with self._guard:
            self._ring.keep(plan, key, len(value), checksum)

    def _erase(self, gone: Place | Plan) -> None:
        """Have no record begin where one was, or was begun. Raises ``OSError``.

        One that was not written to its end has older ones behind its own bytes. They go first: as long as its header
        is there, nobody looks behind it.
        """
        for offset in [*self._behind(gone), gone.offset]:
            memory = self._memory()
            try:
                memory[:BLOCK] = bytes(BLOCK)
                write_at(self._descriptor, memoryview(memory)[:BLOCK], offset)
            finally:
                self._idle.append(memory)

    def _behind(self, gone: Place | Plan) -> list[int]:
        """Where records begin that lie within what another one takes."""
        found: list[int] = []
        memory = self._memory()
        try:
            for start in range(gone.offset + BLOCK, gone.offset + gone.span, CHUNK):
                wanted = min(CHUNK, gone.offset + gone.span - start)
                try:
                    count = system.preadv(self._descriptor, [memoryview(memory)[:wanted]], start)
                except OSError:  # where nothing can be read, no record is found
                    continue
                blocks = range(0, count - BLOCK + 1, BLOCK)
                found += [start + at for at in blocks if read(memory[at : at + BLOCK], self._salt, start + at)]
        finally:
            self._idle.append(memory)
        return found

    def _shrunk(self, plan: Plan) -> bool:
        with self._guard:
            shrunk = self._ring.shrink(plan)
        if shrunk:
            with contextlib.suppress(OSError):
                self._cut(plan.offset)
            log.warning("the disk of %s is full: %d bytes of it are used from now on", self._path, self.capacity)
        return shrunk

    def _is_whole(self, place: Place) -> bool:
        try:
            return self._checksum(place, None) == place.checksum
        except OSError:
            return False

    def _checksum(self, place: Place, view: memoryview | None) -> int:
        """Read a value, into ``view`` where there is one. Raises ``OSError``."""
        total = xxhash.xxh3_64()
        memory = self._memory()
        try:
            room = memoryview(memory)
            at, skip, taken = place.offset, HEADER_BYTES + len(place.key.encode()), 0
            while taken < place.size:
                whole = min(CHUNK, place.end - at)
                if system.preadv(self._descriptor, [room[:whole]], at) < whole:
                    break  # somebody cut the file short
                piece = room[skip : min(whole, skip + place.size - taken)]
                if view is not None:
                    copy(view[taken : taken + len(piece)], piece)
                total.update(piece)
                at, skip, taken = at + whole, 0, taken + len(piece)
        finally:
            self._idle.append(memory)
        return total.intdigest()

    def _memory(self) -> mmap.mmap:
        try:
            return self._idle.pop()
        except IndexError:
            return mmap.mmap(-1, CHUNK)

    def _begun(self) -> bytes:
        """The salt of the file, which begins anew where it has none. Raises ``OSError``, ``ValueError``."""
        memory = self._memory()
        count = system.preadv(self._descriptor, [memoryview(memory)[:BLOCK]], 0)
        salt = salt_of(memory[:count])
        return self._begin() if salt is None else salt

    def _begin(self) -> bytes:
        salt = os.urandom(SALT_BYTES)
        memory = self._memory()
        memory[:BLOCK] = first_block(salt)
        write_at(self._descriptor, memoryview(memory)[:BLOCK], 0)
        return salt

    def _cut(self, length: int) -> None:
        try:
            system.ftruncate(self._descriptor, length)
        except OSError as error:
            if not refused("ftruncate", error, self._path):
                raise
        self._length = min(self._length, length)

    def _unusable(self, error: OSError | ValueError) -> TierUnusable:
        return TierUnusable(path=str(self.directory), detail=words(error))


def _compare(written: int, expected: int) -> None:
    """Raises ``OSError``."""
    if written != expected:
        raise OSError(errno.ESTALE, "the value changed while it was written")
