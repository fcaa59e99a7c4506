"""How a tier gets its directory for itself, and opens its file."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from engine import forks
from engine.files.locks import FileLock
from engine.files.refusals import refused
from engine.files.system import system
from p2pstore.kv.errors import TierTaken, TierUnusable
from p2pstore.kv.tiers.records import BLOCK
from p2pstore.objects.file_system import words

LOCK = "lock"


def opened(path: Path, *, direct: bool) -> tuple[int, bool]:
    """The file, and whether it is read and written past the kernel's cache. Raises ``OSError``."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = -1
    if direct:
        try:
            descriptor = system.open(path, flags | os.O_DIRECT, 0o600)
            with mmap.mmap(-1, BLOCK) as block:
                system.preadv(descriptor, [block], 0)
        except OSError as error:
            if descriptor >= 0:
                system.close(descriptor)
            if not refused("direct I/O", error, path):
                raise
            direct = False
    if not direct:
        descriptor = system.open(path, flags, 0o600)
    forks.hold_descriptor(descriptor)
    return descriptor, direct


def locked(directory: Path) -> tuple[int, FileLock]:
    """The directory, made where it is not there, for this process alone."""
    path = directory / LOCK
    descriptor = -1
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = system.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        return descriptor, FileLock(descriptor, path)
    except OSError as error:
        if descriptor >= 0:
            system.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise TierTaken(path=str(directory)) from None
        raise TierUnusable(path=str(directory), detail=words(error)) from None
