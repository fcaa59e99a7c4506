"""A directory of this host's own, for what the file system of a home cannot hold: sockets, and an etcd's database.

A home may lie on a network's or another machine's file system. A small file in the directory concerned says what stands
for it, so that commands find the agent. What is believed of that file is only a directory that is ours alone.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from p2pstore.errors import StorageError

POINTER = "elsewhere"
"""The file's name."""

MAX_POINTER_BYTES = 4096


def place_of(directory: Path) -> Path:
    """``directory``, or what stands for it."""
    try:
        with (directory / POINTER).open("rb") as stream:
            named = Path(os.fsdecode(stream.read(MAX_POINTER_BYTES)).strip())
    except (OSError, ValueError):
        return directory
    return named if named.is_absolute() and _is_ours_alone(named) else directory


def use_another_place(directory: Path, why: str) -> Path:
    """Have a directory of the host's own stand for ``directory``, and return it. Raises ``StorageError``."""
    import hashlib  # noqa: PLC0415 - every command looks for a place, and hardly any makes one
    import logging  # noqa: PLC0415 - as above

    from engine.files.system import system  # noqa: PLC0415 - as above

    digest = hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()[:12]
    faults = []
    for parent, name in _candidates(digest):
        found = parent / name
        try:
            with contextlib.suppress(FileExistsError):
                system.mkdir(found, 0o700)
            if not _is_ours_alone(found):
                faults.append(f"{found} is not ours alone")
                continue
            (directory / POINTER).write_bytes(os.fsencode(found) + b"\n")
        except OSError as error:
            faults.append(f"{error.filename or found}: {(error.strerror or str(error)).lower()}")
            continue
        log = logging.getLogger(__name__)
        log.warning("the file system of %s does not do (%s): %s stands for it", directory, why, found)
        return found
    raise StorageError(path=directory, detail=f"{why}; and nothing can stand for it: {'; '.join(faults)}")


def use_itself(directory: Path) -> None:
    """Nothing needs to stand for ``directory`` any more."""
    from engine.files.system import system  # noqa: PLC0415 - as above

    with contextlib.suppress(OSError):
        system.unlink(directory / POINTER)


def _candidates(digest: str) -> list[tuple[Path, str]]:
    import tempfile  # noqa: PLC0415 - as above

    own = Path("/run/user", str(os.geteuid()))
    found = [(own, f"mooncake-{digest}")] if _is_ours_alone(own) else []
    parents = dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"))  # noqa: S108 - see _is_ours_alone
    return [*found, *((Path(parent), f"mooncake-{os.geteuid()}-{digest}") for parent in parents)]


def _is_ours_alone(directory: Path) -> bool:
    """Whether it is a directory, no link, that belongs to us, and that nobody else may enter."""
    from engine.files.system import system  # noqa: PLC0415 - as above

    try:
        about = system.lstat(directory)
    except OSError:
        return False
    mode = about.st_mode
    return stat.S_ISDIR(mode) and about.st_uid == os.geteuid() and not stat.S_IMODE(mode) & 0o077
