"""A queue for one task, which takes all that there is at once.

Each chunk of a swarm is several messages on each of two sides. ``asyncio.Queue`` makes a wake-up, and a call, of each
item; here those that come before the task runs are one.
"""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class BatchQueue(Generic[T]):
    """Items in the order of their coming, ``most`` at a time. All calls are made on one event loop's thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: list[T] = []
        self._taker: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        """Items that were not taken."""
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether no more fits."""
        return len(self._items) >= self._most

    def put(self, item: T) -> None:
        """Add an item. Raises ``asyncio.QueueFull``."""
        if len(self._items) >= self._most:
            raise asyncio.QueueFull
        self._items.append(item)
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)

    def drain(self) -> list[T]:
        """All items that there are."""
        items, self._items = self._items, []
        return items

    async def take(self) -> list[T]:
        """All items; waits for the first. For one task at a time."""
        while not self._items:
            self._taker = asyncio.get_running_loop().create_future()
            try:
                await self._taker
            finally:
                self._taker = None
        return self.drain()
