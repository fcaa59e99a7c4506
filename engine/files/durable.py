"""Making files and names survive a power cut, as far as the file system can be told to.

What cannot be synced one way is synced another; what cannot be synced at all has been written, and is read back right:
that is said, and is no error. An error of the disk is one: after it nobody knows what is on it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from engine.files.refusals import DENIED, cannot, say
from engine.files.system import system

FEW_FILES = 64
"""Up to so many files are synced one by one; more are synced with their whole file system in one call."""

_UNOPENED = DENIED | {errno.EISDIR, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.ELOOP}
"""What opening says of a file or directory that may be written to, and not read: a mode of 0200 or 0300, say."""


def sync_files(paths: Sequence[Path], directory: Path) -> None:
    """Make the content of ``paths`` survive a power cut; all are on the file system of ``directory``.

    Raises ``OSError``.
    """
    if len(paths) > FEW_FILES and _sync_all(directory):
        return
    whole = False
    for path in paths:
        try:
            descriptor = system.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno not in _UNOPENED:
                raise
            whole = whole or _sync_all(directory)  # a file whose mode forbids its owner to open it
            continue
        try:
            sync_open(descriptor, path)
        finally:
            system.close(descriptor)


def sync_open(descriptor: int, path: Path) -> None:
    """Make the content of an open file survive a power cut. Raises ``OSError``."""
    try:
        system.fsync(descriptor)
    except OSError as error:
        _sync_through("fsync", error, descriptor, path)


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut. Raises ``OSError``."""
    try:
        descriptor = system.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in _UNOPENED:
            raise
        return  # it may be written to, and not read
    try:
        system.fsync(descriptor)
    except OSError as error:
        _sync_through("fsync of a directory", error, descriptor, path)
    finally:
        system.close(descriptor)


def _sync_all(directory: Path) -> bool:
    """Sync a whole file system; false where that is not to be had. Raises ``OSError``."""
    try:
        descriptor = system.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in _UNOPENED:
            raise
        return False
    try:
        system.syncfs(descriptor)
    except OSError as error:
        if not cannot("syncfs", error):
            raise OSError(error.errno, error.strerror, str(directory)) from None
        return False
    finally:
        system.close(descriptor)
    return True


def _sync_through(call: str, refusal: OSError, descriptor: int, path: Path) -> None:
    """Sync the whole file system instead, where ``refusal`` says that ``call`` is not to be had. Raises ``OSError``."""
    if not cannot(call, refusal):
        raise OSError(refusal.errno, refusal.strerror, str(path)) from None
    try:
        system.syncfs(descriptor)
    except OSError as error:
        if not cannot("syncfs", error):
            raise OSError(error.errno, error.strerror, str(path)) from None
        say(call, refusal, path)
