"""A few file-system operations that Python's library does not have, or has without durability."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_NOREPLACE = 1
_EXCHANGE = 2
_FICLONERANGE = 0x4020940D  # linux/fs.h
_CLONE_RANGE = struct.Struct("qQQQ")  # struct file_clone_range

FEW_FILES = 64
"""Up to so many files are synced one by one; more are synced with their whole file system in one call."""


def words(error: OSError | ValueError) -> str:
    """What the operating system said, in lower case, without number and path."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def sync_files(paths: Sequence[Path], directory: Path) -> None:
    """Make the content of ``paths``, all on the file system of ``directory``, survive a power cut."""
    if len(paths) <= FEW_FILES:
        try:
            for path in paths:
                sync_path(path)
        except PermissionError:  # a file whose mode forbids its owner to open it
            pass
        else:
            return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _LIBC.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(directory))
    finally:
        os.close(descriptor)


def sync_path(path: Path) -> None:
    """Fsync one file or directory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clone_range(source: int, offset: int, length: int, target: int, target_offset: int) -> bool:
    """Let a range of ``target`` share the blocks of ``source`` until one is written (XFS, btrfs and others).

    False where that cannot be: other file systems, two of them, or a range that does not consist of whole blocks.
    """
    try:
        fcntl.ioctl(target, _FICLONERANGE, _CLONE_RANGE.pack(source, offset, length, target_offset))
    except OSError:
        return False
    return True


def rename_new(old: Path, new: Path) -> None:
    """Rename, and raise ``FileExistsError`` if ``new`` exists: nothing is ever replaced."""
    if _renameat2(old, new, _NOREPLACE):
        return
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
    os.rename(old, new)


def rename_over(old: Path, new: Path) -> None:
    """Put ``old`` in the place of ``new``, whatever that is, and remove what was there.

    Where the file system can exchange two names there is no moment at which ``new`` is missing.
    """
    if not os.path.lexists(new):
        os.rename(old, new)
    elif new.is_dir() and not new.is_symlink():
        if _renameat2(old, new, _EXCHANGE):
            remove(old)
            return
        aside = new.with_name(f"{new.name}.{os.urandom(4).hex()}.old")  # a name that nobody's file has
        os.rename(new, aside)
        os.rename(old, new)
        remove(aside)
    elif old.is_dir():
        if not _renameat2(old, new, _EXCHANGE):
            new.unlink()
            os.rename(old, new)
            return
        remove(old)
    else:
        os.replace(old, new)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole directory; no error if it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _renameat2(old: Path, new: Path, flags: int) -> bool:
    """renameat2(2); False where the kernel or the file system does not know the flag."""
    call = getattr(_LIBC, "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}:
        return False
    raise OSError(code, os.strerror(code), str(new))
