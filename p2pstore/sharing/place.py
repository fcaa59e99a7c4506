"""The directory in which processes of one user meet: nobody else may enter it."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from engine.files.system import system
from p2pstore.errors import StorageError

OWN = 0o700


def meeting_directory(environ: Mapping[str, str]) -> Path:
    """Below ``XDG_RUNTIME_DIR`` where that is ours, else in the directory of temporary files; made if need be.

    Raises ``StorageError`` where it is not ours alone: what lies there might be another user's.
    """
    runtime = Path(environ.get("XDG_RUNTIME_DIR") or "/")
    if runtime.is_absolute() and _is_ours_alone(runtime):
        directory = runtime / "mooncake-share"
    else:
        directory = Path(tempfile.gettempdir(), f"mooncake-share-{os.geteuid()}")
    try:
        with contextlib.suppress(FileExistsError):
            system.mkdir(directory, OWN)
    except OSError as error:
        raise StorageError(path=str(directory), detail=error.strerror or str(error)) from None
    if not _is_ours_alone(directory):
        raise StorageError(path=str(directory), detail="it is not a directory that this user alone may enter")
    return directory


def _is_ours_alone(directory: Path) -> bool:
    """Whether it is a directory, no link, that belongs to us, and that nobody else may enter."""
    try:
        about = system.lstat(directory)
    except OSError:
        return False
    mode = about.st_mode
    return stat.S_ISDIR(mode) and about.st_uid == os.geteuid() and not stat.S_IMODE(mode) & 0o077
