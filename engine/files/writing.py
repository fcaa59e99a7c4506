"""Writing all of something, however little one call takes, and whole files in place of what is there."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from engine.files.refusals import refused
from engine.files.system import system


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write behind what was written last. Raises ``OSError``."""
    view = memoryview(data)
    while view:
        view = view[_some(system.write(descriptor, view)) :]


def write_at(descriptor: int, data: bytes | memoryview, at: int) -> None:
    """Write at a position of an open file. Raises ``OSError``."""
    written = system.pwrite(descriptor, data, at)
    while written < len(data):
        _some(written)
        written += _some(system.pwrite(descriptor, memoryview(data)[written:], at + written))


def write_note(descriptor: int, text: bytes) -> None:
    """Have an open file say ``text`` and nothing else. Raises ``OSError``.

    Where no file can be cut short, zeros follow.
    """
    before = system.fstat(descriptor).st_size
    if before:
        try:
            system.ftruncate(descriptor, 0)
        except OSError as error:
            if not refused("ftruncate", error, descriptor):
                raise
            text = text.ljust(before, b"\0")
    if text:
        write_at(descriptor, text, 0)


def replace_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Have a file at ``path``, for its owner alone, that is ``data`` or what was there before, never a part of either.

    Another ``mode`` is cut by the umask. A link at ``path`` is replaced, and what it leads to is left alone; what is
    written to meanwhile has a name that nobody can lay something under. Raises ``OSError``.
    """
    made = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    descriptor = system.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        try:
            write_all(descriptor, data)
        finally:
            system.close(descriptor)
        system.replace(made, path)
    except BaseException:
        with contextlib.suppress(OSError):
            system.unlink(made)
        raise


def _some(count: int) -> int:
    """A file system that takes nothing, and calls that no error, would be asked for ever."""
    if not count:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return count
