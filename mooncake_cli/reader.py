"""Whoever reads what we print, and may go away. A module of its own, since every command line loads it."""

from __future__ import annotations

import errno
import os
import select

from engine.errors import StorageError

TYPE_CHECKING = False  # as in ``mooncake_cli.main``
if TYPE_CHECKING:
    from typing import TextIO


class ReaderGone(Exception):
    """Nobody reads our output any more. No ``OSError``, which Typer would take for its own to handle."""


def is_there(stream: TextIO) -> bool:
    """Whether somebody may still read what is written to a stream. A pipe tells it without being written to."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)  # an error is told whatever is asked for
    return not any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def forget(stream: TextIO) -> None:
    """Let what a stream could not write go to nowhere: Python would complain once more when it flushes at the exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def lost(error: OSError) -> StorageError:
    """What it means that a result could not be written."""
    detail = "it is not open for writing" if error.errno == errno.EBADF else error.strerror or error
    return StorageError(path="standard output", detail=detail)
