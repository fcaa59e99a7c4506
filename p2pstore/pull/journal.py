"""The journal beside a partial destination: which chunks of it are verified, so that a get can be resumed.

One line of JSON that says for which manifest, then four bytes (little-endian) a verified chunk, appended as they come;
behind each, where only some of a chunk's bytes are kept, a note of fixed length: their digest.
A torn tail is ignored. The file is locked (flock) while a get writes the destination, so that two never do. What the
journal says is a hint where to look, not a proof: on resume each of its chunks is hashed again.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.files.locks import FileLock
from engine.files.refusals import refused
from engine.files.stamps import numbers_last
from engine.files.system import system
from engine.files.writing import write_all, write_at
from p2pstore.errors import DestinationBusy, StorageError
from p2pstore.objects.file_system import words

FORMAT = "mooncake.journal.v1"
MAX_HEADER_BYTES = 4096


@dataclass(frozen=True)
class LockedFile:
    """An open journal that is locked for this get alone."""

    descriptor: int
    lock: FileLock

    def close(self) -> None:
        """Unlock; the file stays."""
        system.close(self.descriptor)
        self.lock.let_go()


def lock_journal(path: Path, destination: Path, *, create: bool) -> LockedFile:
    """Open a journal and lock it; what is in it is neither read nor changed.

    Raises ``DestinationBusy`` when another get has it, ``FileNotFoundError``, or another ``OSError``.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_CREAT if create else 0)
    descriptor = system.open(path, flags, 0o600)
    try:
        lock = FileLock(descriptor, path)
    except BlockingIOError:
        system.close(descriptor)
        raise DestinationBusy(path=destination) from None
    except OSError as error:
        system.close(descriptor)
        raise StorageError(path=path, detail=f"it cannot be locked: {words(error)}") from None
    locked = LockedFile(descriptor, lock)
    try:
        there = _stands_at(descriptor, path)
    except FileNotFoundError:
        there = False
    except OSError:
        locked.close()
        raise
    if not there:
        locked.close()
        raise DestinationBusy(path=destination)  # its last holder finished and removed it before we had the lock
    return locked


class Journal:
    """An open, locked journal for one destination and one manifest."""

    def __init__(self, path: Path, locked: LockedFile, manifest: str, name: str, *, note_bytes: int = 0) -> None:
        """Read what is in it, or begin it anew where that is for another manifest. Raises ``StorageError``.

        It owns ``locked`` from now on, also when this raises.
        """
        self.path = path
        self.notes: dict[int, bytes] = {}
        """What is noted of chunks, ``note_bytes`` each; to be there before a chunk is added."""
        self._entry = struct.Struct(f"<I{note_bytes}s")
        self._locked = locked
        self._file = locked.descriptor
        try:
            self.chunks = self._read(manifest)
            if self.chunks is None:
                self._begin(manifest, name)
        except BaseException:
            self.close()  # else the lock would stay as long as the process
            raise

    def _read(self, manifest: str) -> list[int] | None:
        """The chunks that it lists for this manifest; None where it is empty or for another."""
        with open(self._file, "rb", closefd=False) as stream:
            header = stream.readline(MAX_HEADER_BYTES)
            try:
                data = json.loads(header)
            except (ValueError, RecursionError):
                return None
            if not header.endswith(b"\n") or not isinstance(data, dict):
                return None
            if data.get("format") != FORMAT or data.get("manifest") != manifest:
                return None
            body = stream.read()
        size = self._entry.size
        whole = len(body) - len(body) % size
        if whole != len(body) and not self._cut(len(header) + whole):
            whole += size
            body = body.ljust(whole, b"\0")
            write_at(self._file, body[-size:], len(header) + whole - size)
        os.lseek(self._file, 0, os.SEEK_END)
        entries = list(self._entry.iter_unpack(body[:whole]))
        self.notes = {number: note for number, note in entries if note}
        return [number for number, _ in entries]

    def _begin(self, manifest: str, name: str) -> None:
        header = json.dumps({"format": FORMAT, "manifest": manifest, "name": name}).encode() + b"\n"
        left = system.fstat(self._file).st_size
        os.lseek(self._file, 0, os.SEEK_SET)
        if left and not self._cut(0):
            header += bytes(-(-max(0, left - len(header)) // self._entry.size) * self._entry.size)
        self._write(header)

    def _cut(self, size: int) -> bool:
        """Make the file that short; false where it cannot be. Then entries for chunk 0 fill it: they are but hints."""
        try:
            system.ftruncate(self._file, size)
        except OSError as error:
            if not refused("ftruncate", error, self.path):
                raise
            return False
        return True

    @property
    def resumed(self) -> bool:
        """Whether there was a journal of this manifest before."""
        return self.chunks is not None

    def add(self, chunks: range) -> None:
        """Note verified chunks; one write, whichever thread calls."""
        self._write(self._entries(chunks))

    def restart(self, chunks: list[int], manifest: str, name: str) -> None:
        """Begin again with only these chunks: those that were still right."""
        self._begin(manifest, name)
        self._write(self._entries(chunks))

    def _entries(self, chunks: Iterable[int]) -> bytes:
        return b"".join([self._entry.pack(number, self.notes.get(number, b"")) for number in chunks])

    def _write(self, data: bytes) -> None:
        try:
            write_all(self._file, data)
        except OSError as error:
            raise StorageError(path=self.path, detail=words(error)) from None

    def close(self) -> None:
        """Unlock; the file stays."""
        if self._file >= 0:
            self._file = -1
            self._locked.close()


def _stands_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is what stands at ``path``, as far as that can be told. Raises ``OSError``."""
    held, there = system.fstat(descriptor), system.stat(path)
    if (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino):
        return True
    return not numbers_last(there, str(path))
