"""Reading a range of an open file, wherever its bytes go: the one loop around ``pread``."""

from __future__ import annotations

import errno
from collections.abc import Callable

from engine.files.system import system

OWN_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})
"""Errors that say nothing of the file: we have too many open, or too little memory."""


PASSING = frozenset({errno.EIO, errno.EAGAIN, errno.ETIMEDOUT})
"""Errors of a read after which the same read often succeeds, over a network above all: it is tried once more."""


class Unreadable(OSError):
    """The file is at fault, and not where its bytes go."""


class TooShort(Exception):
    """The file ends before the range does."""


def read_range(
    fd: int, offset: int, length: int, room: Callable[[int], memoryview], took: Callable[[int], object]
) -> None:
    """Read ``length`` bytes at ``offset`` of an open file.

    ``room(left)`` gives memory for at most so many bytes, at least one; ``took(count)`` hears how many came into it.
    Raises ``Unreadable`` and ``TooShort``, and what these two raise.
    """
    end = offset + length
    while offset < end:
        view = room(end - offset)
        count = read_some(fd, view, offset)
        if not count:
            raise TooShort
        offset += count
        took(count)


def read_some(fd: int, view: memoryview, offset: int) -> int:
    """Read into ``view`` what one call brings; 0 at the end of the file. Raises ``Unreadable``."""
    try:
        try:
            return system.preadv(fd, [view], offset)
        except OSError as error:
            if error.errno not in PASSING:
                raise
            return system.preadv(fd, [view], offset)
    except OSError as error:
        raise Unreadable(error.errno, error.strerror) from None


def read_into(fd: int, offset: int, view: memoryview) -> None:
    """Fill ``view`` from ``offset`` of an open file on. Raises ``Unreadable`` and ``TooShort``."""
    done = 0

    def took(count: int) -> None:
        nonlocal done
        done += count

    read_range(fd, offset, len(view), lambda _: view[done:], took)
