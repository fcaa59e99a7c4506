"""Whoever reads what we print, and may go away. A module of its own, since every command line loads it."""

from __future__ import annotations

import errno
import os

from engine.errors import StorageError

TYPE_CHECKING = False  # as in ``mooncake_cli.main``
if TYPE_CHECKING:
    from typing import TextIO


class ReaderGone(Exception):
    """Nobody reads our output any more. No ``OSError``, which Typer would take for its own to handle."""


def forget(stream: TextIO) -> None:
    """Let what a stream could not write go to nowhere: Python would complain once more when it flushes at the exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def lost(error: OSError) -> StorageError:
    """What it means that a result could not be written."""
    detail = "it is not open for writing" if error.errno == errno.EBADF else error.strerror or error
    return StorageError(path="standard output", detail=detail)
