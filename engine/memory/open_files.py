"""A bounded cache of open files, so that ten thousand files can be served with a few hundred descriptors.

Thread-safe. A file that is in use stays open when it is evicted, and is closed by its last user.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict

from engine.errors import SourceChanged
from engine.files.system import system

MAX_OPEN_FILES = 256
"""Files kept open between uses, per process; the usual soft limit of descriptors is 1024."""

Key = tuple[int, int]
"""(owner, index): ``discard`` drops all of one owner."""


class OpenFile:
    """A descriptor and the number of its users. ``fd`` is valid between ``acquire`` and ``release``."""

    __slots__ = ("cached", "fd", "key", "users")

    def __init__(self, fd: int, key: Key) -> None:
        self.fd = fd
        self.key = key
        self.users = 1
        self.cached = True


class DescriptorCache:
    """Open files by key, least recently used first out."""

    def __init__(self, limit: int = MAX_OPEN_FILES) -> None:
        """``limit`` bounds the files that are open and unused."""
        self._limit = limit
        self._lock = threading.Lock()
        self._files: OrderedDict[Key, OpenFile] = OrderedDict()

    def __len__(self) -> int:
        return len(self._files)

    def inherited(self) -> list[int]:
        """See ``forks.Inherited``."""
        return [file.fd for file in self._files.values()]

    def renew(self) -> None:
        """Be empty again, in a forked child: whatever used the files is not there any more."""
        self._lock = threading.Lock()
        self._files = OrderedDict()

    def acquire(self, key: Key, path: str) -> OpenFile:
        """The open file of ``key``, opened for reading from ``path`` if need be.

        Raises ``SourceChanged`` when there is no regular file, and ``OSError`` when it cannot be opened.
        """
        with self._lock:
            file = self._files.get(key)
            if file is not None:
                file.users += 1
                self._files.move_to_end(key)
                return file
        opened = OpenFile(_open(path), key)
        with self._lock:
            file = self._files.get(key)
            if file is None:
                self._files[key] = opened
                unused = self._evict()
            else:  # another thread opened it meanwhile
                file.users += 1
                unused = [opened.fd]
        for fd in unused:
            system.close(fd)
        return opened if file is None else file

    def release(self, file: OpenFile) -> None:
        """Give a file back."""
        with self._lock:
            file.users -= 1
            last = not file.users and not file.cached
        if last:
            system.close(file.fd)

    def drop(self, file: OpenFile) -> None:
        """Forget one file that is of no use any more, such as a stale handle; its users still give it back."""
        with self._lock:
            if self._files.get(file.key) is file:
                del self._files[file.key]
            file.cached = False

    def discard(self, owner: int) -> None:
        """Forget all files of ``owner``; those in use are closed by their last user."""
        unused = []
        with self._lock:
            for key in [key for key in self._files if key[0] == owner]:
                file = self._files.pop(key)
                file.cached = False
                if not file.users:
                    unused.append(file.fd)
        for fd in unused:
            system.close(fd)

    def _evict(self) -> list[int]:
        unused = []
        while len(self._files) > self._limit:
            _, file = self._files.popitem(last=False)
            file.cached = False
            if not file.users:
                unused.append(file.fd)
        return unused


def _open(path: str) -> int:
    try:
        # O_NONBLOCK: should a FIFO stand there by now, opening it must not wait for a writer.
        fd = system.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise SourceChanged(path=path, detail="it is gone") from None
    try:
        regular = stat.S_ISREG(system.fstat(fd).st_mode)
    except OSError:
        system.close(fd)
        raise
    if not regular:
        system.close(fd)
        raise SourceChanged(path=path, detail="it is no regular file")
    return fd
