"""A directory, or a file, of links to files that are kept here: to be registered, without a second copy of a byte."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from engine.files.system import system
from p2pstore.errors import StorageError
from p2pstore.holding.incoming import MAX_SHOWN_NAME, SHORT_DIGEST
from p2pstore.objects.file_system import remove, words
from p2pstore.objects.steps import Steps

MAX_PLACES = 100
"""Of one name and revision: each register makes one."""


def lay_out(kept: Path | None, name: str, revision: str, files: Mapping[str, Path | None], steps: Steps) -> Path:
    """Have files by their paths, each where it lies here, or None for an empty one. The path "" is a file by itself.

    ``steps`` counts them. Returns where it is, below ``kept``. Raises ``StorageError``.
    """
    if kept is None:
        raise StorageError(path="this node", detail="it has no directory to keep what it brings")
    part = kept / f".{os.urandom(8).hex()}.part"
    try:
        kept.mkdir(0o700, parents=True, exist_ok=True)
        if "" not in files:
            part.mkdir(0o700)
        for relative, place in files.items():
            path = part / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            if place is not None:
                _link(place, path)
            else:
                path.touch()
            steps.add()
        return _named(part, kept / f"{quote(name, safe='')[:MAX_SHOWN_NAME]}-{revision[:SHORT_DIGEST]}")
    except OSError as error:
        remove(part)
        raise StorageError(path=error.filename or part, detail=words(error)) from None


def _link(there: Path, path: Path) -> None:
    """Have a file under another name, too; a copy where that cannot be."""
    try:
        system.link(there, path)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise
        shutil.copyfile(there, path)


def _named(part: Path, stem: Path) -> Path:
    """Give it a name that nothing else has."""
    for number in range(MAX_PLACES):
        path = stem.with_name(f"{stem.name}-{number}") if number else stem
        if not os.path.lexists(path):
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                part.rename(path)
                return path
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(stem))
