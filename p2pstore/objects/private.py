"""What is never registered: secrets, and an agent's own directories.

Whoever registers a home directory does not mean the agent's secret in it. Links and second names lead there, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from engine.files.system import system
from p2pstore.errors import BadSource


class Private:
    """Files and directories that nobody is to have, as they lie now."""

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        """``paths`` that are not there, or cannot be looked at, are none."""
        self._numbers = {number for number in map(_number, paths) if number is not None}

    def check(self, root: Path, status: os.stat_result) -> None:
        """Raise ``BadSource`` where ``root`` itself is one."""
        if self.has(status):
            raise BadSource(path=root, detail="only this agent may read it: secrets are in it")

    def has(self, status: os.stat_result) -> bool:
        """Whether a file is one."""
        return (status.st_dev, status.st_ino) in self._numbers

    def has_directory(self, path: str) -> bool:
        """Whether a directory is one."""
        return bool(self._numbers) and _number(path) in self._numbers


def _number(path: str | Path) -> tuple[int, int] | None:
    """Device and inode."""
    try:
        status = system.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
