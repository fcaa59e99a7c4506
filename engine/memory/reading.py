"""Reading a range of an open file, wherever its bytes go: the one loop around ``pread``."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

OWN_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})
"""Errors that say nothing of the file: we have too many open, or too little memory."""


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
        try:
            count = os.preadv(fd, [view], offset)
        except OSError as error:
            raise Unreadable(error.errno, error.strerror) from None
        if not count:
            raise TooShort
        offset += count
        took(count)


def read_into(fd: int, offset: int, view: memoryview) -> None:
    """Fill ``view`` from ``offset`` of an open file on. Raises ``Unreadable`` and ``TooShort``."""
    done = 0

    def took(count: int) -> None:
        nonlocal done
        done += count

    read_range(fd, offset, len(view), lambda _: view[done:], took)
