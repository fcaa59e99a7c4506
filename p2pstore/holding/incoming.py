"""A file that comes as a stream: written to a directory of the agent's, and hashed as it comes.

Until it is whole it has a name of its own, which nobody else knows; then its name says what it is, and of what content.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from engine.files.durable import sync_directory, sync_open
from engine.files.stamps import FileStamp
from engine.files.system import system
from engine.files.writing import write_all
from engine.memory.file_spans import FileSpan
from p2pstore.errors import StorageError
from p2pstore.holding.same_content import same_content
from p2pstore.objects.file_list import FileEntry
from p2pstore.objects.file_system import words
from p2pstore.objects.hashing import hasher
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.manifest_reader import MAX_MODE
from p2pstore.objects.waiting import to_its_end

CHUNK_BYTES = 16 << 20
"""Of a stream whose length nobody knows: a thousand of them are 16 GiB."""

MAX_SHOWN_NAME = 120
"""Characters of an object's name in the file's: some file systems take 143 in all."""

SHORT_DIGEST = 16
"""Hexadecimal digits of the manifest's in the file's name."""

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Incoming:
    """One stream. Its methods are called one after the other, in threads; each raises ``StorageError``."""

    def __init__(self, directory: Path, name: str, hash_name: str, chunk_size: int = 0) -> None:
        """Begin a file in ``directory``, which is made where it is not there. Raises ``UsageError`` for a bad hash."""
        self._name = name
        self._hash_name = hash_name
        self._chunk_size = chunk_size or CHUNK_BYTES
        self._make = hasher(hash_name)
        self._hashed = self._make()
        self._left = self._chunk_size
        self._digests: list[bytes] = []
        self._size = 0
        self._directory = directory
        self.path = directory / f".{os.urandom(8).hex()}.part"
        """Where it lies: under a name that nobody knows, until it is whole."""
        self._descriptor = -1
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = system.open(self.path, NEW_FILE, 0o666)
        except OSError as error:
            raise StorageError(path=error.filename or directory, detail=words(error)) from None

    def write(self, data: bytes | memoryview) -> None:
        """Take what comes next."""
        try:
            write_all(self._descriptor, data)
        except OSError as error:
            raise StorageError(path=self._directory, detail=words(error)) from None
        self._size += len(data)
        view = memoryview(data)
        while view:
            part, view = view[: self._left], view[self._left :]
            self._hashed.update(part)
            self._left -= len(part)
            if not self._left:
                self._end_chunk()

    def _end_chunk(self) -> None:
        self._digests.append(self._hashed.digest())
        self._hashed = self._make()
        self._left = self._chunk_size

    def finish(self) -> tuple[Path, FileSpan, Manifest]:
        """All has come: where it lies, its stamp, and what it is."""
        if self._left < self._chunk_size:
            self._end_chunk()
        try:
            mode = stat.S_IMODE(system.fstat(self._descriptor).st_mode) & MAX_MODE
            sync_open(self._descriptor, self.path)
            self._close()
            entry = FileEntry("", self._size, mode, tuple(self._digests))
            manifest = Manifest("file", self._hash_name, self._chunk_size, (entry,)).prepare()
            shown = quote(self._name, safe="")[:MAX_SHOWN_NAME]
            path = self._directory / f"{shown}-{manifest.digest[:SHORT_DIGEST]}"
            there = same_content(path, manifest)
            if there is not None:  # an earlier one, which may be served: it stays, whatever becomes of this one
                self.abort()
                return path, there[0], manifest
            system.replace(self.path, path)
            self.path = path
            sync_directory(self._directory)
            return path, FileSpan(str(path), self._size, FileStamp.of(system.stat(path))), manifest
        except OSError as error:
            raise StorageError(path=error.filename or self._directory, detail=words(error)) from None

    def abort(self) -> None:
        """It does not come to anything: remove what it wrote."""
        self._close()
        with contextlib.suppress(OSError):
            system.unlink(self.path)

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            system.close(descriptor)


async def begun(make: Callable[..., Incoming], *given: object) -> Incoming:
    """One that is made in a thread. When this is cancelled meanwhile, nothing of it is left."""
    making = asyncio.ensure_future(asyncio.to_thread(make, *given))
    try:
        return await to_its_end(making)
    except asyncio.CancelledError:
        await to_its_end(asyncio.to_thread(making.result().abort))
        raise
