"""Turns: whoever changes what is said of some names and contents has them to itself until it is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Iterable
from contextlib import asynccontextmanager


class Turns:
    """One task at a time for each key. Used by one event loop."""

    def __init__(self) -> None:
        self._taken: set[Hashable] = set()
        self._waiting: list[asyncio.Future[None]] = []

    @asynccontextmanager
    async def of(self, keys: Iterable[Hashable]) -> AsyncIterator[None]:
        """Wait until none of the keys is taken, and take them all, until the end of the block.

        They are taken together, so that two tasks never wait for one another. The block takes no further turn.
        """
        wanted = frozenset(keys)
        while self._taken & wanted:
            freed = asyncio.get_running_loop().create_future()
            self._waiting.append(freed)
            await freed
        self._taken |= wanted
        try:
            yield
        finally:
            self._taken -= wanted
            waiting, self._waiting = self._waiting, []
            for freed in waiting:
                if not freed.done():
                    freed.set_result(None)
