"""What stands at a destination, found out before the first byte: can it be replaced, or filled, and where to work.

Whatever a rename would refuse in the end is refused here, in the beginning. A directory that is empty, or that cannot
be renamed over (a mount point, or one whose parent may not be written), is *filled*: it stays, and is given the
object's entries once all of them are whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from p2pstore.errors import (
    DestinationExists,
    DirectoryMissing,
    ForeignContent,
    NotReplaceable,
    StorageError,
    UsageError,
)
from p2pstore.objects.file_system import words
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.mounts import Mounts
from p2pstore.pull.workplace import MAX_WORKPLACES, being_filled, work_name

ALWAYS_THERE = frozenset({"lost+found"})
"""What a file system keeps in its root, and no object put there: it counts as nothing, and stays."""

_GETFLAGS = 0x80086601  # FS_IOC_GETFLAGS of linux/fs.h
_IMMUTABLE = 0x10
_APPEND = 0x20


@dataclass(frozen=True)
class Target:
    """Where a get works (``work_in``, a directory) and whether the destination stays and is filled."""

    work_in: Path
    fill: bool = False


def resolved(path: Path) -> Path:
    """Where a link as a destination leads, dangling or not; any other path as it is.

    Raises ``NotReplaceable`` for a circle, or ``StorageError``.
    """
    try:
        if not path.is_symlink():
            return path
        final = Path(os.path.realpath(path))
        loop = final.is_symlink()
    except OSError as error:
        raise StorageError(path=path, detail=words(error)) from None
    if loop:
        raise NotReplaceable(path=path, detail="it is a link that leads in a circle")
    return final


def taken(path: Path) -> DestinationExists:
    """That something else is at the destination."""
    return DestinationExists(path=path) if os.path.isdir(path) else DestinationExists(path=path, file=True)


def examine(path: Path, manifest: Manifest, *, force: bool) -> Target:
    """What a get of the object to ``path`` is to do; ``path`` is no link. Nothing is changed.

    Raises ``UsageError`` for what is never replaced, ``DestinationExists`` for what is not without ``force``,
    ``NotReplaceable`` for what cannot be, ``PathNotFound`` or ``StorageError``.
    """
    if not path.name:
        raise UsageError(detail=f"{path} cannot be a destination")
    _check_parent(path)
    status = _status(path)
    if status is None:
        return Target(path.parent)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        raise UsageError(detail=f"{path} is a device, a pipe or a socket; a get writes files and directories")
    real, mounts = Path(os.path.realpath(path.parent), path.name), Mounts()
    mounted = mounts.at(real)
    if not stat.S_ISDIR(status.st_mode) or manifest.kind != "directory":
        if not force:
            raise taken(path)
        if mounted:
            raise NotReplaceable(path=path, detail="it is a mount point")
        _check_replaceable(path, real, status, mounts)
        return Target(path.parent)
    if not any(entries(path)):
        return Target(path, fill=True)
    begun = being_filled(path, manifest.digest)
    if not (force or begun):
        raise DestinationExists(path=path)
    if begun or mounted or not os.access(path.parent, os.W_OK | os.X_OK):
        _check_nothing_mounted(path, real, mounts)
        return Target(begun or path, fill=True)
    _check_replaceable(path, real, status, mounts)
    return Target(path.parent)


def entries(path: Path) -> Iterator[os.DirEntry[str]]:
    """What is in a directory, but for what counts as nothing. Raises ``StorageError``."""
    ignored = passed_over(path)
    try:
        with os.scandir(path) as found:
            yield from (entry for entry in found if entry.name not in ignored)
    except OSError as error:
        raise StorageError(path=path, detail=words(error)) from None


def passed_over(path: Path) -> Collection[str]:
    """Names in a destination that count as nothing: what file systems keep there, and where gets to it work."""
    return ALWAYS_THERE.union(work_name(path.name, number) for number in range(MAX_WORKPLACES))


def check_contents(path: Path, manifests: Iterable[Manifest]) -> None:
    """Raise ``ForeignContent`` where something at or below ``path`` has a name that none of the objects has.

    So what is there is an older version of one of them, as far as names tell. Raises ``StorageError``.
    """
    if path.is_symlink() or not path.is_dir():
        return
    files: set[str] = set()
    directories: set[str] = set()
    for manifest in manifests:
        files.update(entry.path for entry in manifest.files)
        directories.update(manifest.all_directories())
    waiting = [(path, "")]
    while waiting:
        directory, inside = waiting.pop()
        for entry in entries(directory) if not inside else _scan(directory):
            name = inside + entry.name
            if entry.is_dir(follow_symlinks=False):
                if name not in directories:
                    raise ForeignContent(path=path, name=name)
                waiting.append((Path(entry.path), f"{name}/"))
            elif not entry.is_file(follow_symlinks=False) or name not in files:
                raise ForeignContent(path=path, name=name)


def _scan(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as found:
            return list(found)
    except OSError as error:
        raise StorageError(path=path, detail=words(error)) from None


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:  # its name is too long, say
        raise StorageError(path=path, detail=words(error)) from None


def _check_parent(path: Path) -> None:
    try:
        mode = path.parent.stat().st_mode
    except FileNotFoundError:
        raise DirectoryMissing(path=path.parent) from None
    except OSError as error:
        raise StorageError(path=path.parent, detail=words(error)) from None
    if not stat.S_ISDIR(mode):
        raise StorageError(path=path.parent, detail="not a directory")


def _check_nothing_mounted(path: Path, real: Path, mounts: Mounts) -> None:
    below = mounts.below(real)
    if below:
        raise NotReplaceable(path=path, detail=f"another file system is mounted below it, at {below}")


def _check_replaceable(path: Path, real: Path, status: os.stat_result, mounts: Mounts) -> None:
    """Raise ``NotReplaceable`` for what may not be renamed over, or removed, by us."""
    _check_nothing_mounted(path, real, mounts)
    parent, me = path.parent.stat(), os.geteuid()
    if parent.st_mode & stat.S_ISVTX and me not in {0, parent.st_uid, status.st_uid}:
        raise NotReplaceable(path=path, detail="it is another user's, in a directory with the sticky bit")
    if _attributes(path) & (_IMMUTABLE | _APPEND) or _attributes(path.parent) & (_IMMUTABLE | _APPEND):
        raise NotReplaceable(path=path, detail="it, or the directory it is in, may not be changed (see lsattr(1))")


def _attributes(path: Path) -> int:
    """What chattr(1) set; 0 where that cannot be found out."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            room = bytearray(8)
            fcntl.ioctl(descriptor, _GETFLAGS, room)
            return int(struct.unpack("i4x", room)[0])
        finally:
            os.close(descriptor)
    return 0
