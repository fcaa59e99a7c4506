"""Noticing that another program wrote to files that a get is writing: who opened them to write, and closed them again.

Times do not tell while our own writes move them. inotify(7) does, at no cost to our own writes: only the closing of a
descriptor that was open for writing is heard of, and ours stay open. It does not hear of writers on other machines.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

MAX_DIRECTORIES = 512
"""Directories of one object that are watched: a user may watch a few thousand in all."""

READ_BYTES = 64 * 1024

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLOSE_WRITE = 0x8
_OVERFLOW = 0x4000
_EVENT = struct.Struct("iIII")  # struct inotify_event, without the name


class ForeignWrites:
    """How often files were closed by somebody who could write them. Used by one thread at a time."""

    def __init__(self, root: Path, directories: Iterable[str]) -> None:
        """Watch ``directories``, paths below ``root``; ``""`` is the root itself. What cannot be watched is not."""
        self.closed: Counter[str] = Counter()
        """How often, by path below the root."""
        self.lost = False
        """Whether more happened than was heard of."""
        self._prefixes: dict[int, str] = {}
        self._fd = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            return
        for number, directory in enumerate(directories):
            if number >= MAX_DIRECTORIES:
                break
            path = os.fsencode(root / directory if directory else root)
            watch = _LIBC.inotify_add_watch(self._fd, path, ctypes.c_uint32(_CLOSE_WRITE))
            if watch < 0:
                break
            self._prefixes[watch] = f"{directory}/" if directory else ""

    def hear(self) -> None:
        """Take note of what happened since the last call."""
        while self._fd >= 0:
            try:
                data = os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                return
            at = 0
            while at < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size
                name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
                at += length
                self.lost = self.lost or bool(mask & _OVERFLOW)
                if watch in self._prefixes and mask & _CLOSE_WRITE:
                    self.closed[self._prefixes[watch] + name] += 1

    def close(self) -> None:
        """Watch no more."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def being_written(descriptor: int) -> bool:
    """Whether another descriptor of an open file, which is open for reading, could write it. False if nobody can tell.

    A read lease is to be had of a file that nobody has open for writing; see fcntl(2).
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
