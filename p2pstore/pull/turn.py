"""The gets of one node take turns: a bounded number runs at once, and the others wait in the order of their coming.

A thousand at once would share a few cores, a few descriptors and one disk: each would take as long as all, and most
would lose patience with sources that answer as fast as they can.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

MAX_GETS = 32
"""Gets of one node that run at once."""

TELL_SECONDS = 15.0
"""How often one that waits is told its place."""


class GetQueue:
    """Who runs and who waits. For one event loop."""

    def __init__(self, most: int = MAX_GETS) -> None:
        self._most = most
        self.running = 0
        self._waiting: dict[asyncio.Future[None], None] = {}  # in order; done when it is its turn

    @property
    def waiting(self) -> int:
        """Gets that wait for their turn."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, tell: Callable[[int], None]) -> AsyncIterator[None]:
        """Wait for a turn, and have it. ``tell`` hears how many are before it, at once and now and then."""
        if self.running < self._most and not self._waiting:
            self.running += 1
        else:
            await self._wait(tell)
        try:
            yield
        finally:
            self.running -= 1
            self._next()

    async def _wait(self, tell: Callable[[int], None]) -> None:
        """Return when it is our turn, which is counted as running by then."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[mine] = None
        try:
            while not mine.done():
                tell(list(self._waiting).index(mine))
                await asyncio.wait({mine}, timeout=TELL_SECONDS)  # ``wait_for`` may lose a cancel, before 3.12
        except BaseException:
            if mine in self._waiting:
                del self._waiting[mine]
            else:  # it was our turn already: it is the next one's
                self.running -= 1
                self._next()
            raise

    def _next(self) -> None:
        while self._waiting and self.running < self._most:
            first = next(iter(self._waiting))
            del self._waiting[first]
            self.running += 1
            first.set_result(None)
