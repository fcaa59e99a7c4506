"""What the file system of a directory can hold, found out by trying: what etcd, SQLite and sockets need of it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.files.system import system


@dataclass(frozen=True)
class Abilities:
    """What works in a directory, and what said no to what does not, in a few words."""

    locks: bool
    mappings: bool
    directory_syncs: bool
    sockets: bool
    private: bool
    """Whether a directory there is ours, and nobody else can enter it."""
    mapped_owner: bool
    """Whether the file system calls what we make somebody else's."""
    why: str = ""

    @property
    def databases(self) -> bool:
        """Whether what keeps a database in mapped files (etcd's bbolt, SQLite's WAL) can work."""
        return self.locks and self.mappings and self.directory_syncs


def abilities_of(directory: Path) -> Abilities:
    """Try them in ``directory``, which is there. Raises ``OSError`` where nothing can be made in it at all."""
    about = system.stat(directory)
    name = directory / f".try-{os.getpid()}-{os.urandom(3).hex()}"
    failed: dict[str, str] = {}
    descriptor = system.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        made = system.fstat(descriptor)
        mapped = made.st_uid != os.geteuid() and about.st_uid == made.st_uid
        with _trying("flock", failed):
            system.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with _trying("lock", failed):
            system.lock_range(descriptor)
        with _trying("mmap", failed):
            system.pwrite(descriptor, bytes(mmap.PAGESIZE), 0)
            system.unmap(system.map_shared(descriptor, 0, mmap.PAGESIZE), mmap.PAGESIZE)
    finally:
        with contextlib.suppress(OSError):
            system.close(descriptor)
        with contextlib.suppress(OSError):
            system.unlink(name)
    with _trying("fsync of a directory", failed):
        opened = system.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            system.fsync(opened)
        finally:
            system.close(opened)
    with _trying("socket", failed):
        _bind(directory, f"{name.name}.s")
    return Abilities(
        locks="flock" not in failed and "lock" not in failed,
        mappings="mmap" not in failed,
        directory_syncs="fsync of a directory" not in failed,
        sockets="socket" not in failed,
        private=about.st_uid == os.geteuid() and not stat.S_IMODE(about.st_mode) & 0o077,
        mapped_owner=mapped,
        why=", ".join(f"{call}: {word}" for call, word in failed.items()),
    )


def _bind(directory: Path, name: str) -> None:
    """Make a socket there, under a name that is short however long the directory's is, and remove it."""
    opened = system.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            system.bind(sock, f"/proc/self/fd/{opened}/{name}")
            if not stat.S_ISSOCK(system.lstat(directory / name).st_mode):
                raise OSError(errno.ENOTSUP, "it is no socket afterwards")
    finally:
        with contextlib.suppress(OSError):
            system.unlink(directory / name)
        system.close(opened)


@contextlib.contextmanager
def _trying(call: str, failed: dict[str, str]) -> Iterator[None]:
    """Note an error of ``call``; that there is no room says nothing of it."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            failed[call] = (error.strerror or str(error)).lower()
