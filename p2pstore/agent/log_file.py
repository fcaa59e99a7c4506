"""The log of an agent in the background, which is its standard output and error: begun anew before it fills the disk.

What is written is never lost: the old file is renamed, a new one made, and both descriptors are turned to it at once.
``node run`` in the foreground logs to whatever it was given, which is left alone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from engine.files.system import system
from p2pstore.agent.home import old_log

KEPT = 3
"""Old logs: ``agent.log.1`` is the youngest."""

LOOK_SECONDS = 10.0
"""Between two looks at how large it is."""

_DESCRIPTORS = (1, 2)

_FRESH = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class LogFile:
    """The log at ``path``, which is begun anew when it has more than ``most`` bytes; 0: never."""

    def __init__(self, path: Path, most: int, failed: Callable[[OSError], None] = lambda _: None) -> None:
        """``failed`` hears why no new one can be made; the old one then goes on."""
        self._path = path
        self._most = most
        self._failed = failed

    async def keep(self) -> None:
        """Look at it now and then, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await asyncio.to_thread(self.look)
            except OSError as error:
                self._failed(error)

    def look(self) -> bool:
        """Begin it anew if it is too large; whether it was. Raises ``OSError``; it then goes on as it was."""
        mine = [descriptor for descriptor in _DESCRIPTORS if self._is_mine(descriptor)]
        if not self._most or not mine or system.fstat(mine[0]).st_size <= self._most:
            return False
        for number in range(KEPT, 1, -1):
            younger = old_log(self._path, number - 1)
            if younger.exists():
                system.replace(younger, old_log(self._path, number))
        system.replace(self._path, old_log(self._path, 1))
        try:
            fresh = system.open(self._path, _FRESH, 0o600)
        except OSError:
            system.replace(old_log(self._path, 1), self._path)
            raise
        try:
            for descriptor in mine:
                os.dup2(fresh, descriptor)
        finally:
            system.close(fresh)
        return True

    def _is_mine(self, descriptor: int) -> bool:
        """Whether a descriptor leads to the file that is at the path now: else nobody made us its keeper."""
        try:
            here, there = system.fstat(descriptor), system.lstat(self._path)
        except OSError:
            return False
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
