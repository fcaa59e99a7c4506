"""The places of a pull's feeds: so many holders are read at once, and the others wait until one of them ends."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Container
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2pstore.pull.feed import Feed


class Placed:
    """One feed that has a place and reads a holder's stream: ``kicked`` makes it end, ``over`` says that it has."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.near: bool | None = None  # None until that is known
        self.feed: Feed | None = None  # once it is read
        self.kicked = asyncio.Event()
        self.over = asyncio.Event()

    @property
    def leads(self) -> bool:
        """Whether it says that it is a gateway of this node's zone: who gives that up begins an election."""
        return bool(self.near and self.feed and self.feed.leads)

    def may_go(self, kept: Container[str], *, near: bool) -> bool:
        """Whether it may give its place up for one that is ``near`` or not; none whose key is ``kept`` may."""
        return not (self.key in kept or self.leads or self.kicked.is_set()) and self.near in {None, near}


class Places:
    """As a semaphore, but whoever waits is served at random, behind those for whom another made room.

    Those who wait in turn are served in the order in which they came, which is about the same at every node of a
    cluster: then all would read the same holders, and nobody the others. For one event loop's tasks.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._first: deque[asyncio.Future[None]] = deque()
        self._others: list[asyncio.Future[None]] = []

    @property
    def full(self) -> bool:
        """Whether who comes now would have to wait."""
        return not self._free

    async def take(self, *, first: bool = False) -> None:
        """Wait for a place; ``first`` before all who wait without it. Each that is taken is to be given back."""
        if self._free:
            self._free -= 1
            return
        waits = asyncio.get_running_loop().create_future()
        (self._first if first else self._others).append(waits)
        try:
            await waits
        except BaseException:
            if waits.done() and not waits.cancelled():
                self.give()  # it was served in the moment in which it was told to end
            raise

    def give(self) -> None:
        """Give one back."""
        while self._first or self._others:
            waits = self._first.popleft() if self._first else self._drawn()
            if not waits.done():
                waits.set_result(None)
                return
        self._free += 1

    def _drawn(self) -> asyncio.Future[None]:
        number = random.randrange(len(self._others))  # noqa: S311 - no secret
        self._others[number], self._others[-1] = self._others[-1], self._others[number]
        return self._others.pop()
