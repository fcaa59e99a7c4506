"""The system calls on files, one attribute each: the only place from which engine and store make them.

Tests put a file system in their place that refuses, lies or hangs by script. Code calls ``system.fsync(fd)`` and asks
``engine.files.refusals`` what an error means. Calls that Python's library lacks are made through libc, and repeated
when a signal interrupts them, as Python does with the others.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_LIBC.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_PROT_READ, _PROT_WRITE, _MAP_SHARED, _FAILED = 1, 2, 1, ctypes.c_void_p(-1).value
_MADV_DONTFORK = 10
_MADV_HUGEPAGE = 14
_AT_FDCWD = -100
_FICLONERANGE = 0x4020940D  # linux/fs.h
_CLONE_RANGE = struct.Struct("qQQQ")  # struct file_clone_range
_FLOCK = struct.Struct("hhqqi4x")  # struct flock where off_t has 64 bits
_KEEP_SIZE = 1
_PUNCH_HOLE = 2
_STATFS = struct.Struct("l")  # the first field of struct statfs: f_type

NOREPLACE = 1
EXCHANGE = 2
"""Flags of renameat2(2)."""


class System:
    """The kernel's calls, each raising ``OSError`` as Python's own do."""

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    stat = staticmethod(os.stat)
    lstat = staticmethod(os.lstat)
    fstat = staticmethod(os.fstat)
    statvfs = staticmethod(os.statvfs)
    access = staticmethod(os.access)
    pread = staticmethod(os.pread)
    preadv = staticmethod(os.preadv)
    pwrite = staticmethod(os.pwrite)
    write = staticmethod(os.write)
    sendfile = staticmethod(os.sendfile)
    ftruncate = staticmethod(os.ftruncate)
    fsync = staticmethod(os.fsync)
    chmod = staticmethod(os.chmod)
    fchmod = staticmethod(os.fchmod)
    rename = staticmethod(os.rename)
    replace = staticmethod(os.replace)
    link = staticmethod(os.link)
    unlink = staticmethod(os.unlink)
    mkdir = staticmethod(os.mkdir)
    rmdir = staticmethod(os.rmdir)
    flock = staticmethod(fcntl.flock)

    @staticmethod
    def scandir(path: str) -> Iterator[os.DirEntry[str]]:
        """The entries of a directory."""
        return os.scandir(path)

    @staticmethod
    def lock_range(fd: int, *, shared: bool = False) -> None:
        """A lock of fcntl(2) on the whole file that belongs to the open file, as flock's does; never waits."""
        kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))

    @staticmethod
    def syncfs(fd: int) -> None:
        """Write out the whole file system of an open file."""
        _checked(_LIBC.syncfs, fd)

    @staticmethod
    def renameat2(old: os.PathLike[str], new: os.PathLike[str], flags: int) -> None:
        """Rename, with ``NOREPLACE`` or ``EXCHANGE``."""
        call = getattr(_LIBC, "renameat2", None)
        if call is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(new))
        _checked(call, _AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags, path=str(new))

    @staticmethod
    def clone(target: int, at: int, source: int, offset: int, length: int) -> None:
        """Let a range of ``target`` share the blocks of ``source``: FICLONERANGE of ioctl_ficlonerange(2)."""
        fcntl.ioctl(target, _FICLONERANGE, _CLONE_RANGE.pack(source, offset, length, at))

    @staticmethod
    def punch(fd: int, offset: int, length: int) -> None:
        """Make a range a hole, which reads as zeros: FALLOC_FL_PUNCH_HOLE of fallocate(2)."""
        _checked(_LIBC.fallocate, fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length)

    @staticmethod
    def map_shared(fd: int, offset: int, length: int, *, writable: bool = False) -> int:
        """Map part of a file to be read, and written where ``writable``, from a page's boundary on; the address."""
        access = _PROT_READ | _PROT_WRITE if writable else _PROT_READ
        address = _LIBC.mmap(None, length, access, _MAP_SHARED, fd, offset)
        if address == _FAILED:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return int(address)

    @staticmethod
    def keep_from_children(address: int, length: int) -> None:
        """Leave a mapping out of what a forked child has: MADV_DONTFORK of madvise(2)."""
        _checked(_LIBC.madvise, address, length, _MADV_DONTFORK)

    @staticmethod
    def prefer_huge_pages(address: int, length: int) -> None:
        """Have memory that is touched from now on come in huge pages, if it may: MADV_HUGEPAGE of madvise(2)."""
        _checked(_LIBC.madvise, address, length, _MADV_HUGEPAGE)

    @staticmethod
    def unmap(address: int, length: int) -> None:
        """Undo ``map_shared``."""
        _LIBC.munmap(address, length)

    @staticmethod
    def type_of(path: str) -> int:
        """The magic number of the file system at ``path``: ``f_type`` of statfs(2)."""
        room = ctypes.create_string_buffer(256)
        _checked(_LIBC.statfs, os.fsencode(path), room, path=path)
        return int(_STATFS.unpack_from(room)[0]) & 0xFFFFFFFF

    @staticmethod
    def bind(sock: socket.socket, address: str) -> None:
        """Make a Unix socket's file."""
        sock.bind(address)


def _checked(call: ctypes._NamedFuncPointer, *arguments: object, path: str | None = None) -> None:
    """Call a function of libc that returns 0, again when a signal interrupts it. Raises ``OSError``."""
    while call(*arguments) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code), path)


system = System()
"""The one that is used."""
