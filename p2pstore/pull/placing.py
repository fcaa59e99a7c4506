"""From the partial form to the final name: by one rename, or entry by entry into a directory that stays."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.files.durable import sync_directory
from engine.files.stamps import STAMP_BYTES, FileStamp
from engine.files.system import system
from p2pstore.objects.file_system import remove, rename_new, rename_over
from p2pstore.objects.manifest import Manifest
from p2pstore.pull.target import entries
from p2pstore.pull.workplace import Workplace

_CANNOT_MOVE = frozenset({errno.EXDEV, errno.EBUSY})
"""What rename(2) says of a directory that came with a lower layer of overlayfs, or that is somebody's mount point."""


def place(work: Workplace, path: Path, manifest: Manifest, *, force: bool) -> bool:
    """Give the partial form its final name. Returns whether that took a ``fill``.

    Raises ``FileExistsError`` for what may not be replaced, or ``OSError``.
    """
    if not force:
        rename_new(work.part, path)
        return False
    try:
        rename_over(work.part, path)
    except OSError as error:
        if error.errno not in _CANNOT_MOVE or path.is_symlink() or not path.is_dir():
            raise
        if manifest.kind == "directory":
            fill(work, path, manifest, force=True)
            return True
        remove(path)
        system.rename(work.part, path)
    return False


def fill(work: Workplace, path: Path, manifest: Manifest, *, force: bool) -> None:
    """Move the entries of the partial form into the directory at ``path``, and remove what else is in there.

    A get that is ended meanwhile leaves a mark by which the next one knows that those are the object's. Without
    ``force`` nothing may be there but what such a get left. Raises ``OSError``.
    """
    replace = force or work.filling
    work.begin_to_fill()
    sync_directory(work.path)
    ours = {each.partition("/")[0] for each in (*(f.path for f in manifest.files), *manifest.directories)}
    for name in sorted(ours):
        old, new = work.part / name, path / name
        if replace and os.path.lexists(new):
            if not (old.is_file() and new.is_file() and not new.is_symlink()):
                remove(new)
            system.replace(old, new)
        else:
            rename_new(old, new)
    for entry in list(entries(path)):
        if entry.name not in ours and replace:
            remove(Path(entry.path))


def renamed(root: Path, paths: Sequence[str], stamps: bytes) -> bytes:
    """The stamps of an object's files at ``root``, of which those at its top were renamed: that counts as a change."""
    found = bytearray(stamps)
    for number, path in enumerate(paths):
        if "/" in path:
            continue
        at = slice(number * STAMP_BYTES, (number + 1) * STAMP_BYTES)
        stamp = FileStamp.unpack(stamps[at])
        try:
            ctime = system.lstat(root / path).st_ctime_ns
        except OSError:
            ctime = 0
        found[at] = replace(stamp, ctime_ns=ctime if stamp.ctime_ns else 0).packed()
    return bytes(found)
