"""Names and blocks in a file system: renames that replace nothing, or all, removal, shared blocks."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
from pathlib import Path

from engine.files.refusals import refused
from engine.files.system import EXCHANGE, NOREPLACE, system

log = logging.getLogger(__name__)

_IN_THE_WAY = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR})
"""What rename(2) says where something stands that it does not replace."""


def words(error: OSError | ValueError) -> str:
    """What the operating system said, in lower case, without number and path."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def clone_range(source: int, offset: int, length: int, target: int, target_offset: int) -> bool:
    """Let a range of ``target`` share the blocks of ``source`` until one is written (XFS, btrfs and others).

    False where that cannot be: other file systems, two of them, or a range that does not consist of whole blocks.
    """
    try:
        system.clone(target, target_offset, source, offset, length)
    except OSError:  # whatever it says, the bytes can be copied: what is wrong with a disk shows there
        return False
    return True


def rename_new(old: Path, new: Path) -> None:
    """Rename, and raise ``FileExistsError`` if ``new`` exists: nothing is ever replaced but an empty directory."""
    try:
        system.renameat2(old, new, NOREPLACE)
    except OSError as error:
        if not refused("rename without replacing", error, new):
            raise
    else:
        return
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
    if not stat.S_ISDIR(system.lstat(old).st_mode) and _link_new(old, new):
        return
    try:
        system.rename(old, new)  # for a directory: it replaces no file, and no directory that holds something
    except OSError as error:
        if error.errno in _IN_THE_WAY:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new)) from None
        raise


def _link_new(old: Path, new: Path) -> bool:
    """Give a file its new name by link(2), which replaces nothing; false where there are no links."""
    try:
        system.link(old, new, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        if not refused("link", error, new):
            raise
        return False
    try:
        system.unlink(old)
    except OSError as error:
        log.warning("%s is in place, and its old name %s cannot be removed: %s", new, old, error.strerror)
    return True


def rename_over(old: Path, new: Path) -> None:
    """Put ``old`` in the place of ``new``, whatever that is, and remove what was there.

    Where the file system can exchange two names there is no moment at which ``new`` is missing.
    """
    if not os.path.lexists(new):
        system.rename(old, new)
    elif new.is_dir() and not new.is_symlink():
        if _exchange(old, new):
            _remove_replaced(old)
            return
        aside = new.with_name(f"{new.name}.{os.urandom(4).hex()}.old")  # a name that nobody's file has
        system.rename(new, aside)
        system.rename(old, new)
        _remove_replaced(aside)
    elif old.is_dir():
        if not _exchange(old, new):
            system.unlink(new)
            system.rename(old, new)
            return
        _remove_replaced(old)
    else:
        system.replace(old, new)


def _exchange(old: Path, new: Path) -> bool:
    """Exchange two names; false where the file system cannot."""
    try:
        system.renameat2(old, new, EXCHANGE)
    except OSError as error:
        if not refused("exchange of names", error, new):
            raise
        return False
    return True


def _remove_replaced(path: Path) -> None:
    """Remove what was replaced. The new is in place: what cannot be removed (a file open over NFS, say) stays."""
    try:
        remove(path)
    except OSError as error:
        log.warning("what was replaced is left at %s: %s", path, error.strerror)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole directory; no error if it is not there."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            system.unlink(path)
    except FileNotFoundError:
        if os.path.lexists(path):  # something inside went away while it was being removed
            remove(path)
