"""How much room there is, and how much is taken, where the file system tells."""

from __future__ import annotations

import os

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


def allocated(status: os.stat_result) -> int | None:
    """The bytes that a file takes up; None where the file system says 0 of a file that is not empty."""
    if status.st_size and not status.st_blocks:
        return None
    return status.st_blocks * BLOCK
