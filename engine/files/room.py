"""How much room there is, and how much is taken, where the file system tells."""

from __future__ import annotations

import os

from engine.cgroups import memory_left
from engine.files.refusals import refused
from engine.files.system import system

BLOCK = 512
"""What ``st_blocks`` counts in."""


def free_bytes(directory: str | os.PathLike[str]) -> int | None:
    """The bytes that may still be written there; None where the file system does not say, or says nothing but zeros.

    Raises ``OSError``.
    """
    try:
        about = system.statvfs(directory)
    except OSError as error:
        if not refused("statvfs", error, directory):
            raise
        return None
    if not about.f_blocks or not about.f_frsize:
        return None
    return about.f_bavail * about.f_frsize


IN_MEMORY = frozenset({0x01021994, 0x858458F6})
"""Types of file systems whose files are memory of whoever writes them: tmpfs, ramfs (linux/magic.h)."""


def memory_for(directory: str | os.PathLike[str]) -> int | None:
    """The bytes that files there may yet take of this process's memory limit; None on a disk, and without a limit.

    Past the limit no write fails: the kernel kills the process.
    """
    try:
        if system.type_of(os.fspath(directory)) not in IN_MEMORY:
            return None
    except OSError:
        return None
    return memory_left()


def allocated(status: os.stat_result) -> int | None:
    """The bytes that a file takes up; None where the file system says 0 of a file that is not empty."""
    if status.st_size and not status.st_blocks:
        return None
    return status.st_blocks * BLOCK
