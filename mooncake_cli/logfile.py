"""The end of a log file, and what is added to it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from p2pstore.agent.home import old_log

BLOCK = 64 << 10
"""Bytes that are read at once, from the end backwards."""

POLL = 0.25
"""Seconds between two looks at whether the log grew."""


def last_lines(path: Path, count: int) -> tuple[list[str], int]:
    """The last ``count`` lines, and the position after them; the first of them may be from the log before."""
    lines, end = _tail(path, count)
    number = 1
    while len(lines) < count and (before := old_log(path, number)).exists():
        lines = _tail(before, count - len(lines))[0] + lines
        number += 1
    return lines, end


def _tail(path: Path, count: int) -> tuple[list[str], int]:
    with path.open("rb") as stream:
        end = position = stream.seek(0, os.SEEK_END)
        data = b""
        while position and data.count(b"\n") <= count:
            step = min(BLOCK, position)
            position = stream.seek(position - step)
            data = stream.read(step) + data
    lines = data.decode("utf-8", "replace").split("\n")
    if lines[-1] == "":
        lines.pop()
    return (lines[-count:] if count else []), end


def follow_log(path: Path, position: int, idle: Callable[[], None]) -> Iterator[str]:
    """Every whole line added after ``position``, for ever; a log that was replaced or cut is read from its start.

    ``idle`` is called before each wait, and may raise to end it.
    """
    stream = path.open("rb")
    try:
        stream.seek(position)
        pending = b""
        replaced = False
        while True:
            data = stream.read(BLOCK)
            if data:
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    yield line.decode("utf-8", "replace")
                continue
            if replaced:  # and what was written to the old one before that has been read
                stream.close()
                stream = path.open("rb")
                pending = b""
                replaced = False
                continue
            idle()
            time.sleep(POLL)
            replaced = _is_another(path, stream.fileno(), stream.tell())
    finally:
        stream.close()


def _is_another(path: Path, descriptor: int, position: int) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    then = os.fstat(descriptor)
    return (now.st_ino, now.st_dev) != (then.st_ino, then.st_dev) or now.st_size < position
