"""What file systems refuse, or answer wrongly, and what is done instead: one table, and whoever was told of it.

A file system that cannot do something says so in many ways: ENOTSUP, EINVAL, ENOSYS, EPERM, ENOTTY, ENOLCK, or with
zeros for an answer. Such an answer must end no work: there is another way, or something less is promised, and that is
said once. An error that is no refusal (EIO, ENOSPC, EDQUOT) is an error, and told as what it is.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from engine.files.system import system

log = logging.getLogger(__name__)

ENOTSUPP = 524
"""Not in errno.h: the kernel's own ENOTSUPP, which NFS and others let out."""

CANNOT = frozenset({errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY, ENOTSUPP})
"""What says of any call that it cannot be had there."""

DENIED = frozenset({errno.EPERM, errno.EACCES})
"""The same of calls that need no permission which we lack: modes, links, sockets, locks."""

MAX_SAID = 1000
"""File systems of which is remembered what was said."""


@dataclass(frozen=True)
class Refusal:
    """One row: which errors of a call mean that it cannot be had, what is done instead, and what users are told.

    ``said`` is empty where nothing is lost.
    """

    errors: frozenset[int]
    instead: str
    said: str = ""


REFUSALS: Mapping[str, Refusal] = {
    "flock": Refusal(
        CANNOT | DENIED | {errno.ENOLCK, errno.EBADF},
        "a lock of fcntl(2), where that is had; else none",
    ),
    "lock": Refusal(
        CANNOT | DENIED | {errno.ENOLCK, errno.EBADF},
        "work without: this process knows what it writes itself",
        "the file system of {path} has no locks: other machines and processes that write there are not noticed",
    ),
    "fsync": Refusal(
        CANNOT | {errno.EROFS},
        "syncfs(2), and nothing where that is refused, too",
        "the file system of {path} cannot be told to write a file out: a power cut soon after may cost it",
    ),
    "fsync of a directory": Refusal(
        CANNOT | DENIED | {errno.EBADF, errno.EROFS, errno.EISDIR},
        "syncfs(2), and nothing where that is refused, too",
        "the file system of {path} cannot be told to write a directory out: a power cut soon after may cost a new name",
    ),
    "syncfs": Refusal(CANNOT | {errno.EBADF}, "each file is synced by itself"),
    "chmod": Refusal(
        CANNOT | DENIED | {errno.EROFS},
        "the mode stays as the file system made it",
        "the file system of {path} does not let modes be set: files there have the mode that it gives them",
    ),
    "rename without replacing": Refusal(
        CANNOT | {errno.EPERM},
        "link(2) and unlink(2), else a look whether the name is free, and rename(2)",
    ),
    "exchange of names": Refusal(CANNOT | {errno.EPERM}, "what is there is renamed aside first"),
    "link": Refusal(
        CANNOT | DENIED | {errno.EMLINK, errno.EXDEV},
        "a look whether the name is free, and rename(2)",
    ),
    "ftruncate": Refusal(
        CANNOT | DENIED,
        "the file grows as it is written, and its size is looked at in the end",
    ),
    "punch": Refusal(CANNOT | DENIED | {errno.ENODEV, errno.ETXTBSY}, "zeros are written"),
    "statvfs": Refusal(CANNOT | DENIED | {errno.EOVERFLOW}, "nothing is known of the room there is"),
    "sendfile": Refusal(
        CANNOT | DENIED | {errno.EIO, errno.ENODEV, errno.EOVERFLOW, errno.EFAULT},
        "the bytes are read, and sent from memory; a fault of the file shows there",
    ),
    "mmap": Refusal(CANNOT | DENIED | {errno.ENODEV, errno.ETXTBSY}, "the bytes are read into memory of our own"),
    "direct I/O": Refusal(CANNOT | {errno.EPERM}, "reads and writes go through the kernel's cache"),
    "socket": Refusal(
        CANNOT | DENIED | {errno.EROFS, errno.EIO, errno.ENXIO, errno.EAFNOSUPPORT},
        "the agent's sockets lie in a directory below /run/user or /tmp",
    ),
}
"""By the call, as this project names it. The ways round are where the calls are made."""


class Said:
    """What was said of which file system, so that it is said once in the log, and to everybody who asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: dict[int | str, dict[str, str]] = {}

    def add(self, call: str, path: str, text: str) -> bool:
        """Remember it; false where it was said before."""
        device = _device(path)  # a file system that hangs must not hold up those who ask of others
        with self._lock:
            if len(self._texts) >= MAX_SAID:
                self._texts.clear()
            known = self._texts.setdefault(device, {})
            return known.setdefault(call, text) is text

    def of(self, path: str) -> tuple[str, ...]:
        """All that was said of the file system of ``path``."""
        device = _device(path)
        with self._lock:
            return tuple(self._texts.get(device, {}).values())

    def clear(self) -> None:
        """Forget it all."""
        with self._lock:
            self._texts.clear()


said = Said()


def cannot(call: str, error: OSError) -> bool:
    """Whether an error of ``call`` (a row of the table) says that the file system cannot do it."""
    return error.errno in REFUSALS[call].errors


def say(call: str, error: OSError, path: object) -> None:
    """Say what is lost where the file system of ``path`` refuses ``call``: once in the log, and to whoever asks."""
    text = REFUSALS[call].said.format(path=path)
    if text and said.add(call, str(path), text):
        log.warning("%s (%s: %s)", text, call, error.strerror)


def refused(call: str, error: OSError, path: object) -> bool:
    """As ``cannot``; if so, what is lost is said."""
    if not cannot(call, error):
        return False
    say(call, error, path)
    return True


def _device(path: str) -> int | str:
    """The file system of a path, or of what is above it; the path itself where nothing is known."""
    for place in (path, os.path.dirname(path) or "."):
        try:
            return system.stat(place).st_dev
        except OSError:
            continue
    return os.path.dirname(path)
