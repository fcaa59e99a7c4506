"""The state of a master on disk, so that the next one knows what this one knew.

A record is written before the answer goes out to which it belongs, so ``kill -9`` at any moment loses no value whose
put had ended. It is not synced each time: after a power cut the state is not believed (``recovery``). The log is
replaced by a snapshot once it is long; that is written in slices while the master goes on.

A disk that is full, or fails, ends nothing: what could not be written is owed, and tried again. Until then
``refusing`` says why nothing new may be put; what is there can be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from engine.files.durable import sync_directory, sync_open
from engine.files.locks import FileLock
from engine.files.system import system
from engine.files.writing import write_all
from p2pstore.kv.errors import JournalFailed, StateOfOtherVersion, StateTaken, StateUnusable
from p2pstore.kv.master.recovery import Recovery
from p2pstore.kv.master.state_files import (
    HEADER_BYTES,
    NOTHING,
    Header,
    OtherVersion,
    frames,
    log_path,
    older,
    part_path,
    snapshot_path,
    this_boot,
)
from p2pstore.kv.pool.pool import Pool
from p2pstore.kv.pool.records import BadRecord
from p2pstore.kv.pool.restore import Restoring, Snapshot
from p2pstore.kv.pool.settings import PoolSettings
from p2pstore.kv.pool.walks import STEP_ENTRIES, Steps, whole
from p2pstore.objects.file_system import words

log = logging.getLogger(__name__)

MIN_LOG = 16 << 20
"""Bytes of a log that are not worth a snapshot."""

GROWTH = 2
"""A log is replaced once it is so many times as long as the snapshot that it follows."""

SLICE = 200
"""Values of a snapshot that are written at a time: some 2 ms."""

SLICE_PAUSE_S = 0.003
"""Between two slices, for everybody else."""

PAUSE_S = 1.0
"""Between two looks at the log's length, and two tries of what could not be written."""

AGAIN_S = 60.0
"""After a snapshot that could not be written."""

MAX_OWED = 16 << 20
"""Bytes that are kept for a disk that does not take them; beyond that a snapshot has to say it all."""


class Mode(enum.Enum):
    """What becomes of a record."""

    KEEPING = "keeping"
    """It is written to the log."""

    OWING = "owing"
    """It waits for the disk to take it."""

    LOST = "lost"
    """It is dropped: some before it were, so only a snapshot can tell how it is now."""

    CATCHING_UP = "catching up"
    """It is written to a log that counts only with the snapshot that is being written."""


class Journal:
    """The state directory of one master. Everything is called from the loop that owns the pool."""

    def __init__(self, directory: Path, lock: tuple[int, FileLock], pool: Pool, recovery: Recovery) -> None:
        """Begin a new log. Raises ``OSError``."""
        self.directory = directory
        self.refusing = ""
        """Why nothing new may be put; empty while all is kept."""
        self._pool = pool
        self._lock = lock
        self._mode = Mode.KEEPING
        self._owed: list[bytes] = []
        self._owes = 0
        self._finishing = False
        self._snapshot_bytes = 0
        self._descriptor, self._number, self._length = -1, 0, 0
        self._begin_log(recovery.highest + 1, recovery.number, recovery.length)

    @classmethod
    def open(cls, directory: Path, settings: PoolSettings, clock: Callable[[], float]) -> tuple[Journal, Pool]:
        """The journal of a directory, and the pool that it knows of, at once; see ``opening``."""
        pool = Pool(replace(settings, log=True), clock)
        return whole(cls.opening(directory, pool)), pool

    @classmethod
    def opening(cls, directory: Path, pool: Pool) -> Steps[Journal]:
        """The journal of a directory, which is made; what it knows of is put into the pool, which is empty.

        Raises ``StateTaken`` where another master has it, and ``StateUnusable``.
        """
        lock = _locked(directory)
        try:
            recovery = Recovery(directory)
            restoring = Restoring()
            for number, record in enumerate(recovery.records()):
                restoring.apply(record)
                if not number % STEP_ENTRIES:
                    yield
            if recovery.number and not recovery.believed():
                log.warning("the machine went down while a master kept its state in %s: it begins empty", directory)
                recovery.number = recovery.length = NOTHING  # so that nobody takes the new log for its continuation
            else:
                yield from pool.restored(restoring)
            journal = cls(directory, lock, pool, recovery)
            yield from journal._first_snapshot()
        except BaseException as error:
            system.close(lock[0])
            lock[1].let_go()
            if isinstance(error, OSError):
                raise StateUnusable(path=str(directory), detail=words(error)) from None
            if isinstance(error, (BadRecord, OtherVersion)):
                raise StateOfOtherVersion(path=str(directory)) from None
            raise
        return journal

    def _first_snapshot(self) -> Steps[None]:
        """Write the pool as it is, which nobody changes yet. Raises ``OSError``."""
        try:
            writing = _Writing(self.directory, self._number, self._pool.snapshot())
            try:
                while not writing.ended:
                    writing.step()
                    yield
                self._snapshot_bytes = writing.finish()
            finally:
                writing.close()
        except BaseException:
            descriptor, self._descriptor = self._descriptor, -1
            system.close(descriptor)
            raise

    def append(self, records: Sequence[bytes]) -> None:
        """Keep records. Raises ``JournalFailed`` where they are not kept now."""
        if not records:
            return
        if self._mode is Mode.OWING:
            self._owe(records)
        elif self._mode is not Mode.LOST:
            try:
                self._write(frames(self._number, records))
            except OSError as error:
                self._failed(error, records)
        if self.refusing:
            raise JournalFailed(path=str(self.directory), detail=self.refusing)

    async def keep(self) -> None:
        """See to the log's length, and to what is owed, until cancelled: a task for whoever supervises."""
        pause = PAUSE_S
        while True:
            await asyncio.sleep(pause)
            pause = PAUSE_S
            if self._mode is Mode.OWING:
                self._pay()
            elif self._mode is Mode.LOST or self._length > max(MIN_LOG, GROWTH * self._snapshot_bytes):
                try:
                    await self._replace_log()
                except OSError as error:
                    log.warning("no snapshot of the master's state in %s: %s", self.directory, words(error))
                    pause = PAUSE_S if self._mode is Mode.LOST else AGAIN_S

    def close(self) -> None:
        """Say that all is kept, and let the directory go. Twice is harmless."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        with contextlib.suppress(OSError):  # then the next master finds it as after kill -9
            if self._mode is Mode.KEEPING:
                write_all(descriptor, frames(self._number, [b""]))
                sync_open(descriptor, self.directory)
        with contextlib.suppress(OSError):
            system.close(descriptor)
        system.close(self._lock[0])
        self._lock[1].let_go()

    # -- the log

    def _begin_log(self, number: int, after: int, length: int) -> None:
        path = log_path(self.directory, number)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = system.open(path, flags, 0o600)
        try:
            write_all(descriptor, Header(number, this_boot(), after, length).packed())
        except OSError:
            system.close(descriptor)
            system.unlink(path)
            raise
        if self._descriptor >= 0:
            system.close(self._descriptor)
        self._descriptor, self._number, self._length = descriptor, number, HEADER_BYTES

    def _write(self, data: bytes) -> None:
        write_all(self._descriptor, data)
        self._length += len(data)

    def _failed(self, error: OSError, records: Sequence[bytes]) -> None:
        """The log took no record: take back what it took a part of, so that the next one can be read."""
        if not self.refusing:
            log.error("the master's state in %s is not kept: %s; nothing new is put", self.directory, words(error))
        self.refusing = words(error)
        try:
            system.ftruncate(self._descriptor, self._length)
            os.lseek(self._descriptor, self._length, os.SEEK_SET)
        except OSError:
            self._mode = Mode.LOST
            return
        if self._mode is Mode.CATCHING_UP:
            self._mode = Mode.LOST
            return
        self._mode = Mode.OWING
        self._owe(records)

    def _owe(self, records: Sequence[bytes]) -> None:
        self._owed += records
        self._owes += sum(map(len, records))
        if self._owes > MAX_OWED and not self._finishing:
            self._mode = Mode.LOST
            self._forgive()

    def _forgive(self) -> None:
        self._owed, self._owes = [], 0

    def _pay(self) -> None:
        owed = self._owed
        self._forgive()
        self._mode = Mode.KEEPING
        try:
            self._write(frames(self._number, owed))
        except OSError as error:
            self._failed(error, owed)
            return
        self._kept_again()

    def _kept_again(self) -> None:
        self.refusing = ""
        log.info("the master's state in %s is kept again", self.directory)

    # -- its snapshot

    async def _replace_log(self) -> None:
        """Have a snapshot instead of the log. Raises ``OSError``: then the log goes on, or all is lost as before."""
        lost = self._mode is Mode.LOST
        number, length = (NOTHING, NOTHING) if lost else (self._number, self._length)
        before = os.dup(self._descriptor)
        writing = None
        try:
            self._begin_log(self._number + 1, number, length)
            if lost:
                self._mode = Mode.CATCHING_UP
                self._forgive()
            writing = _Writing(self.directory, self._number, self._pool.snapshot())
            while not writing.ended and self._mode is not Mode.LOST:
                writing.step()
                await asyncio.sleep(SLICE_PAUSE_S)
            if self._mode is Mode.LOST:
                return
            self._finishing = True
            await asyncio.to_thread(sync_open, before, self.directory)
            self._snapshot_bytes = await asyncio.to_thread(writing.finish)
            if self._mode is Mode.CATCHING_UP:
                self._mode = Mode.KEEPING
                self._kept_again()
        except BaseException:
            if self._mode is Mode.CATCHING_UP:
                self._mode = Mode.LOST
            raise
        finally:
            self._finishing = False
            system.close(before)
            if writing is not None:
                writing.close()


class _Writing:
    """A snapshot that is being written."""

    def __init__(self, directory: Path, number: int, snapshot: Snapshot) -> None:
        """Raises ``OSError``."""
        self._directory = directory
        self._number = number
        self._snapshot = snapshot
        self._bytes = 0
        self._path = part_path(directory, number)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = system.open(self._path, flags, 0o600)
        except OSError:
            snapshot.close()
            raise
        self._left = True
        self._put(Header(number, this_boot(), NOTHING, NOTHING).packed())

    @property
    def ended(self) -> bool:
        """Whether all values are written."""
        return self._snapshot.ended

    def step(self) -> None:
        """Write some more values. Raises ``OSError``."""
        self._put(frames(self._number, self._snapshot.step(SLICE)))

    def finish(self) -> int:
        """Give it its name, remove what it replaces, and tell its length. Raises ``OSError``."""
        self._put(frames(self._number, [b""]))
        sync_open(self._descriptor, self._path)
        system.rename(self._path, snapshot_path(self._directory, self._number))
        self._left = False
        sync_directory(self._directory)
        for path in older(self._directory, self._number):
            with contextlib.suppress(OSError):  # the next snapshot removes it
                system.unlink(path)
        return self._bytes

    def close(self) -> None:
        """Remove what is not finished."""
        self._snapshot.close()
        system.close(self._descriptor)
        if self._left:
            with contextlib.suppress(OSError):  # the next snapshot removes it
                system.unlink(self._path)

    def _put(self, data: bytes) -> None:
        write_all(self._descriptor, data)
        self._bytes += len(data)


def _locked(directory: Path) -> tuple[int, FileLock]:
    """The directory, made where it is not there, for this process alone."""
    path = directory / "lock"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = system.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StateUnusable(path=str(directory), detail=words(error)) from None
    try:
        return descriptor, FileLock(descriptor, path)
    except BlockingIOError:
        system.close(descriptor)
        raise StateTaken(path=str(directory)) from None
    except OSError as error:
        system.close(descriptor)
        raise StateUnusable(path=str(directory), detail=words(error)) from None
