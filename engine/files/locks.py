"""Locks on files that never wait, of whatever kind the file system has; within this process where it has none."""

from __future__ import annotations

import errno
import fcntl
import os
import threading

from engine import forks
from engine.files.refusals import refused
from engine.files.system import system


class FileLock:
    """A lock on an open file, until that is closed and ``let_go`` called.

    ``seen`` tells whether other processes see it. Where not, because the file system has no locks, that is said once;
    whoever must be alone then has to find out otherwise.
    """

    def __init__(self, fd: int, path: str | os.PathLike[str], *, shared: bool = False) -> None:
        """``path`` is where it was opened. Raises ``BlockingIOError`` when another holds it, and ``OSError``."""
        forks.hold_descriptor(fd)  # a forked child would keep the lock
        self.seen = _by_flock(fd, path, shared=shared) or _by_range(fd, path, shared=shared)
        self._path = "" if self.seen or shared else os.path.realpath(path)
        if self._path:
            with _guard:
                if self._path in _held:
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), self._path)
                _held.add(self._path)

    def let_go(self) -> None:
        """Forget it. The file's end has unlocked it. Twice is harmless."""
        path, self._path = self._path, ""
        if path:
            with _guard:
                _held.discard(path)


def _by_flock(fd: int, path: object, *, shared: bool) -> bool:
    try:
        system.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if not refused("flock", error, path):
            raise
        return False
    return True


def _by_range(fd: int, path: object, *, shared: bool) -> bool:
    try:
        system.lock_range(fd, shared=shared)
    except BlockingIOError:
        raise
    except OSError as error:
        if not refused("lock", error, path):
            raise
        return False
    return True


_guard = threading.Lock()
_held: set[str] = set()
"""What this process has locked where the file system has no locks."""


def _none() -> None:
    """A forked child has locked nothing."""
    global _guard  # noqa: PLW0603 - it may be taken
    _guard = threading.Lock()
    _held.clear()


forks.renew_at_fork(_none)
