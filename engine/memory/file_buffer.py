"""A file that peers may write, as a registered buffer: held open, of one length, never mapped."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

from engine import forks
from engine.errors import StorageError, UsageError
from engine.files.system import system
from engine.files.writing import write_at
from engine.memory.buffers import Buffer, FileRun
from engine.memory.reading import TooShort, Unreadable, read_into
from engine.memory.sending import send_file

if TYPE_CHECKING:
    from pathlib import Path


class OpenFileBuffer(Buffer):
    """The ``length`` bytes at ``offset`` of a file. Thread-safe: every access names its own position.

    It is not mapped: a first write through a mapping costs twice what ``pwrite`` does, and a file that another process
    shortens would end this one.
    """

    def __init__(
        self, name: str, path: Path | str, *, writable: bool = False, offset: int = 0, length: int | None = None
    ) -> None:
        """Without ``length`` it is all behind ``offset``. A writable file is made as long as it must be.

        Raises ``StorageError`` when it cannot be opened, ``UsageError`` when there is no such range.
        """
        self.name = name
        self.writable = writable
        self._path = str(path)
        self._start = offset
        self._fd = -1
        try:
            self._fd = system.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK)
            forks.hold_descriptor(self._fd)
            status = system.fstat(self._fd)
            self.length = status.st_size - offset if length is None else length
            if writable and self.length > 0 and stat.S_ISREG(status.st_mode) and status.st_size < offset + self.length:
                system.ftruncate(self._fd, offset + self.length)
                status = system.fstat(self._fd)
        except OSError as error:
            self.close()
            raise StorageError(path=self._path, detail=error.strerror or str(error)) from None
        if not stat.S_ISREG(status.st_mode) or offset < 0 or not 0 < self.length <= status.st_size - offset:
            self.close()
            raise UsageError(detail=f"{path} holds no {self.length} bytes at {offset}")

    def send(self, sock: socket.socket, offset: int, length: int) -> int:
        """See ``Buffer.send``."""
        try:
            sent = send_file(sock, self._fd, self._start + offset, length)
        except Unreadable as error:
            raise StorageError(path=self._path, detail=error.strerror or str(error)) from None
        if not sent:
            raise StorageError(path=self._path, detail="it became shorter")
        return sent

    def read_into(self, offset: int, view: memoryview) -> None:
        """See ``Buffer.read_into``."""
        try:
            read_into(self._fd, self._start + offset, view)
        except TooShort:
            raise StorageError(path=self._path, detail="it became shorter") from None
        except Unreadable as error:
            raise StorageError(path=self._path, detail=error.strerror or str(error)) from None

    def write_from(self, offset: int, view: memoryview) -> None:
        """See ``Buffer.write_from``."""
        if not self.writable:
            super().write_from(offset, view)
        try:
            write_at(self._fd, view, self._start + offset)
        except OSError as error:
            raise StorageError(path=self._path, detail=error.strerror or str(error)) from None

    def file_run(self, offset: int, length: int) -> FileRun | None:
        """See ``Buffer.file_run``; a writable file is not handed out, for the receiver could write all of it."""
        return None if self.writable else FileRun(os.dup(self._fd), self._start + offset, length)

    def close(self) -> None:
        """See ``Buffer.close``."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            system.close(fd)
