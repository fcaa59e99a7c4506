"""Files whose content is renewed while we run, like certificates and secrets: read once, and again when they change."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from engine.errors import MooncakeError

LOOK_SECONDS = 1.0
"""Between two looks at the stamps of the files."""

WAIT_SECONDS = 2.0
"""For a look. A file system that does not answer must not hold up whoever asks; what was read before will do."""

log = logging.getLogger(__name__)

T = TypeVar("T")

_Stamp = tuple[int, int, int, int, int] | None


class Renewed(Generic[T]):
    """What some files say together, read again when one of them has another stamp than it had.

    Whoever renews them may be half-way: where they cannot be read, what was read before stays in force, and they are
    tried again until they can. Belongs to one event loop; looks at files in threads.
    """

    def __init__(
        self, files: Sequence[Path], read: Callable[[], T], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Reads at once, and raises what ``read`` raises. ``clock`` tells seconds."""
        self._files = tuple(files)
        self._read = read
        self._clock = clock
        self._stamps = self._look()
        self._next = clock() + LOOK_SECONDS
        self._looking = False
        self.value = read()
        """What they said last."""

    async def current(self) -> T:
        """What they say now, as of ``LOOK_SECONDS`` ago at most; as long as they can be read."""
        if self._clock() >= self._next and not self._looking:
            self._looking = True
            await asyncio.wait({asyncio.ensure_future(self._renew())}, timeout=WAIT_SECONDS)
        return self.value

    async def _renew(self) -> None:
        try:
            await asyncio.to_thread(self._read_again)
        except (MooncakeError, OSError, RuntimeError) as error:  # the last, and UsageError: no thread is to be had
            log.warning("%s; what was read before stays in force", error)
        finally:
            self._next = self._clock() + LOOK_SECONDS
            self._looking = False

    def _read_again(self) -> None:
        """Read what has changed. Raises what reading raises."""
        stamps = self._look()
        if stamps != self._stamps:
            self.value = self._read()
            self._stamps = stamps
            log.info("read again: %s", ", ".join(map(str, self._files)))

    def _look(self) -> tuple[_Stamp, ...]:
        return tuple(_stamp(file) for file in self._files)


def _stamp(file: Path) -> _Stamp:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
