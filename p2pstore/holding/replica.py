"""A replica: what this node has of one object, where peers read it, and who wants to hear of new chunks."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from p2pstore.cluster.news import NOTHING, News, Shared
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.manifest import Manifest
from p2pstore.swarm.audience import Audience

MAX_PENDING = 65536
"""News that wait for one slow listener; one that falls behind further is cut off, and may come again."""

GATHER_SECONDS = 0.005
"""Chunks that are verified within this are told of together."""


@dataclass(eq=False)
class Listener:
    """A queue of news for one peer, and None when the replica is withdrawn.

    ``shared``: it shares an origin with another that passes on what it gets, as far as it was told.
    """

    shared: bool = False
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    news: asyncio.Queue[News | None] = field(default_factory=lambda: asyncio.Queue(MAX_PENDING))

    async def hear(self, patience: float) -> News | None:
        """The next news, None at the end, or ``NOTHING`` after ``patience`` seconds without."""
        # Cheaper than a timeout of asyncio's, which takes a task; there are as many of these as chunks and listeners.
        timer = asyncio.get_running_loop().call_later(patience, self._nothing)
        try:
            return await self.news.get()
        finally:
            timer.cancel()

    def _nothing(self) -> None:
        if self.news.empty():
            self.news.put_nowait(NOTHING)

    def put(self, item: News | None) -> None:
        """Add news; a listener too slow to take it is told that the replica is gone."""
        if self.news.full():
            while not self.news.empty():
                self.news.get_nowait()
            item = None
        self.news.put_nowait(item)


class Replica:
    """One object on this node, whole or in part. ``address`` is 0 while nothing of it can be read.

    ``have`` is written by whoever verifies chunks, and read by those who serve them. Methods but those that say
    otherwise run on the event loop's thread.
    """

    def __init__(self, manifest: Manifest, have: Bitmap, role: str, loop: asyncio.AbstractEventLoop) -> None:
        self.manifest = manifest
        self.have = have
        self.role = role
        self.address = 0
        self.reason = ""
        """Why it was withdrawn, for people elsewhere."""
        self._loop = loop
        self._listeners: dict[str, Listener] = {}
        self._audience = Audience(self._lengths, random.randrange)
        self._gathered: list[range] = []

    @property
    def state(self) -> str:
        """``complete`` or ``partial``."""
        return "complete" if self.have.full else "partial"

    @property
    def crowded(self) -> bool:
        """Whether nobody more should listen."""
        return self._audience.full

    def servable(self, offset: int, length: int) -> bool:
        """Whether every chunk that a range of the object touches is verified. Any thread."""
        return self.have.has_all(self.manifest.chunks_of(offset, length))

    def landed(self, run: range) -> None:
        """These chunks are verified now: tell the listeners. Any thread."""
        if self._listeners:
            self._loop.call_soon_threadsafe(self._gather, run)

    def withdrawn(self, reason: str = "") -> None:
        """The replica is served no more: tell the listeners, and why."""
        self.reason = reason
        self._flush()
        self._tell(None)

    def offers(self, key: str, count: int, done: Iterable[range]) -> tuple[list[range], bool]:
        """Up to ``count`` runs for a listener to fetch, which has fetched those in ``done``.

        The second is whether everything was offered. A listener that passes nothing on is offered nothing. See
        ``p2pstore.swarm.audience``.
        """
        if not self.have.full:
            return [], False
        return self._audience.offers(key, count, done, self._loop.time())

    @contextmanager
    def listen(self, *, seeds: bool = True) -> Iterator[Listener]:
        """News from now on. Take ``have`` after entering: a chunk may then come twice, but none is missed.

        ``seeds``: who listens passes on what it gets.
        """
        listener = Listener()
        self._listeners[listener.key] = listener
        self._share(self._audience.join(listener.key, seeds=seeds, whole=self.have.full))
        listener.shared = self._audience.shared(listener.key)
        try:
            yield listener
        finally:
            del self._listeners[listener.key]
            self._share(self._audience.leave(listener.key))

    def _lengths(self) -> Sequence[int]:
        return self.manifest.lengths

    def _share(self, keys: Iterable[str]) -> None:
        """Tell these whether they share the replica with another that passes chunks on."""
        for key in keys:
            listener = self._listeners[key]
            listener.shared = self._audience.shared(key)
            listener.put(Shared(listener.shared))

    def _gather(self, run: range) -> None:
        if not self._gathered:
            self._loop.call_later(GATHER_SECONDS, self._flush)
        self._gathered.append(run)

    def _flush(self) -> None:
        if self._gathered:
            self._tell(tuple(self._gathered))
            self._gathered.clear()

    def _tell(self, item: News | None) -> None:
        for listener in self._listeners.values():
            listener.put(item)
