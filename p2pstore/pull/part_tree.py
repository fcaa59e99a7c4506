"""The partial form as a tree of directories and files: laid out, held against what the object has, and made durable.

Nothing here knows of chunks: what is in the files is ``p2pstore.pull.part_files``'s and the destination's.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import overload

from engine.files.durable import sync_directory, sync_files
from engine.files.refusals import cannot, say
from engine.files.system import system
from p2pstore.errors import ForeignFile, Interrupted, StorageError
from p2pstore.objects.file_system import words
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.steps import Steps
from p2pstore.pull.part_files import PartFiles


def make_directories(part: Path, shape: Manifest, *, fresh: bool) -> None:
    """Make every directory of a partial form; unless it is ``fresh``, some are there.

    Raises as ``refuse_foreign``, ``StorageError`` where the file system takes two names for one, and ``OSError``.
    """
    if shape.kind != "directory":
        return
    _directory(part, fresh=fresh)
    if not fresh:
        refuse_foreign(part, shape)
    for directory in sorted(shape.all_directories()):
        _directory(part / directory, fresh=fresh)


def make_files(files: PartFiles, shape: Manifest, steps: Steps, cancelled: threading.Event, *, fresh: bool) -> None:
    """Make every file, at its full size; what is there already keeps its content.

    Raises ``StorageError``, or ``Interrupted`` once ``cancelled`` is set.
    """
    steps.begin("making files", len(shape.files), "files")
    for number in range(len(shape.files)):
        steps.add()
        if cancelled.is_set():
            raise Interrupted(detail="making files was cancelled")
        try:
            files.make(number, fresh=fresh)
        except FileExistsError:
            raise _taken(files.path(number)) from None
        except OSError as error:
            raise StorageError(path=files.path(number), detail=words(error)) from None


def refuse_foreign(part: Path, shape: Manifest) -> None:
    """Raise ``ForeignFile`` for something in the partial directory that is not the object's, links included."""
    known = shape.all_directories().union(shape.columns.paths)
    top = len(str(part)) + 1
    for directory, directories, names in os.walk(part):
        inside = f"{directory[top:]}/" if directory[top:] else ""
        for name in (*directories, *names):
            if inside + name not in known:
                raise ForeignFile(path=Path(directory, name))
        for name in directories:
            if os.path.islink(f"{directory}/{name}"):  # nobody has looked at what is behind it
                raise ForeignFile(path=Path(directory, name))


def make_durable(files: PartFiles, shape: Manifest, part: Path, within: Path, steps: Steps) -> None:
    """Set modes, and have all of a partial form on disk, names included; ``within`` is the directory that it is in.

    Raises as ``refuse_foreign``, and ``OSError``.
    """
    count = len(shape.files)
    if files.unset_modes:
        steps.begin("setting modes", len(files.unset_modes), "files")
    for number in files.unset_modes:
        _set_mode(files.path(number), shape.columns.modes[number])
        steps.add()
    steps.begin(f"syncing {count:,} file{'' if count == 1 else 's'}")
    sync_files(_Paths(files, count), within)
    if shape.kind == "directory":
        refuse_foreign(part, shape)
        inside = sorted(shape.all_directories())
        steps.begin("syncing", len(inside) + 1, "directories")
        for directory in inside:
            sync_directory(part / directory)
            steps.add()
        sync_directory(part)


class _Paths(Sequence[Path]):
    """The paths of all files, each made when it is asked for: most often none is."""

    def __init__(self, files: PartFiles, count: int) -> None:
        self._files = files
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Path]: ...
    def __getitem__(self, index: int | slice) -> Path | Sequence[Path]:
        if isinstance(index, slice):
            return [self._files.path(number) for number in range(self._count)[index]]
        return self._files.path(range(self._count)[index])


def _directory(path: Path, *, fresh: bool) -> None:
    """Make a directory; one that is there must be a real one, not a link, and may not be there if all is ``fresh``."""
    try:
        path.mkdir()
    except FileExistsError:
        if fresh:
            raise _taken(path) from None
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise


def _set_mode(path: Path, mode: int) -> None:
    """Give a file its mode, where the file system lets us and it has another. Raises ``OSError``."""
    try:
        system.chmod(path, mode)
    except OSError as error:
        if not cannot("chmod", error):
            raise
        if stat.S_IMODE(system.lstat(path).st_mode) != mode:
            say("chmod", error, path.parent)


def _taken(path: Path) -> StorageError:
    """A name of the object's is there already, though nothing of it was made: two of its names are one."""
    detail = "the file system takes it for another name of the object: it does not tell upper from lower case, say"
    return StorageError(path=path, detail=detail)
