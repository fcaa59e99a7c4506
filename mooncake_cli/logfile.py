"""The end of a log file, and what is added to it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

BLOCK = 64 << 10
"""Bytes that are read at once, from the end backwards."""

POLL = 0.25
"""Seconds between two looks at whether the log grew."""


def last_lines(path: Path, count: int) -> tuple[list[str], int]:
    """The last ``count`` lines, and the position after them."""
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


def follow_log(path: Path, position: int) -> Iterator[str]:
    """Every whole line added after ``position``, for ever; a log that was replaced or cut is read from its start."""
    stream = path.open("rb")
    try:
        stream.seek(position)
        pending = b""
        while True:
            data = stream.read(BLOCK)
            if data:
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    yield line.decode("utf-8", "replace")
                continue
            time.sleep(POLL)
            if _is_another(path, stream.fileno(), stream.tell()):
                stream.close()
                stream = path.open("rb")
                pending = b""
    finally:
        stream.close()


def _is_another(path: Path, descriptor: int, position: int) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    then = os.fstat(descriptor)
    return (now.st_ino, now.st_dev) != (then.st_ino, then.st_dev) or now.st_size < position
