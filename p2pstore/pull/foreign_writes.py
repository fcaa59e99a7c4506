"""Noticing that another program wrote to files that a get is writing: who opened them to write, and closed them again.

Times do not tell while our own writes move them. inotify(7) does, at no cost to our own writes: only the closing of a
descriptor that was open for writing is heard of, and ours stay open. It does not hear of writers on other machines.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import os
import struct
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

MAX_DIRECTORIES = 512
"""Directories of one object that are watched: a user may watch a few thousand in all."""

MAX_WATCHES = 256
"""Directories that one instance of inotify is given to watch, one get after the other."""

READ_BYTES = 64 * 1024

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLOSE_WRITE = 0x8
_OVERFLOW = 0x4000
_EVENT = struct.Struct("iIII")  # struct inotify_event, without the name


class _Inotify:
    """One instance of inotify, for many gets: to remove a watch takes milliseconds, and to close all of them ten.

    So none is removed. When enough have been made the next get has a new instance, and the old one is closed with the
    last get that uses it.
    """

    def __init__(self) -> None:
        self._fd = int(_LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self.full = self._fd < 0  # a user has 128 of them: the next get asks again
        self._owners: dict[int, ForeignWrites] = {}
        self._made = 0

    def add(self, path: Path, owner: ForeignWrites) -> int:
        """Watch a directory; the watch's number, negative where it cannot be watched."""
        if self._fd < 0:
            return -1
        watch = int(_LIBC.inotify_add_watch(self._fd, os.fsencode(path), ctypes.c_uint32(_CLOSE_WRITE)))
        if watch >= 0:
            self._owners[watch] = owner
        self._made += 1
        self.full = self._made >= MAX_WATCHES
        return watch

    def let_go(self, watches: Iterable[int]) -> None:
        """Nobody wants to hear of these any more."""
        for watch in watches:
            self._owners.pop(watch, None)
        if self.full and not self._owners:
            self.close()

    def close(self) -> None:
        """Watch nothing any more."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def hear(self) -> None:
        """Tell everybody what happened since the last call."""
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
                if mask & _OVERFLOW:
                    for owner in self._owners.values():
                        owner.lost = True
                elif mask & _CLOSE_WRITE and watch in self._owners:
                    self._owners[watch].note(watch, name)


class _Shared:
    """The instance that the next get uses, and the lock that is held for every call to any of them."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """In a forked child: what is heard is the parent's."""
        self.lock = threading.Lock()
        self.instance: _Inotify | None = None

    def current(self) -> _Inotify:
        """An instance that may be given more to watch."""
        if self.instance is None or self.instance.full:
            self.instance = _Inotify()
        self.instance.hear()  # what happened before is nobody's
        return self.instance


_shared = _Shared()
os.register_at_fork(after_in_child=_shared.forget)


class ForeignWrites:
    """How often files were closed by somebody who could write them. Thread-safe."""

    def __init__(self, root: Path, directories: Iterable[str]) -> None:
        """Watch ``directories``, paths below ``root``; ``""`` is the root itself. What cannot be watched is not."""
        self.closed: Counter[str] = Counter()
        """How often, by path below the root."""
        self.lost = False
        """Whether more happened than was heard of."""
        self._prefixes: dict[int, str] = {}
        with _shared.lock:
            self._inotify = _shared.current()
            for directory in itertools.islice(directories, MAX_DIRECTORIES):
                watch = self._inotify.add(root / directory if directory else root, self)
                if watch < 0:
                    break
                self._prefixes[watch] = f"{directory}/" if directory else ""

    def note(self, watch: int, name: str) -> None:
        """Somebody closed a file of that name."""
        self.closed[self._prefixes[watch] + name] += 1

    def hear(self) -> None:
        """Take note of what happened since the last call."""
        with _shared.lock:
            self._inotify.hear()

    def close(self) -> None:
        """Hear no more of it. Twice is harmless."""
        with _shared.lock:
            self._inotify.let_go(self._prefixes)


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
