"""A replica: what this node has of one object, where peers read it, and who wants to hear of new chunks."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from p2pstore.cluster.news import NOTHING, News, Shared
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.manifest import Manifest
from p2pstore.swarm.audience import Audience
from p2pstore.swarm.events import Word
from p2pstore.swarm.words import say

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
        self._audience = Audience(self._lengths, random.Random())  # noqa: S311 - spreads load, guards nothing
        self._granting: asyncio.TimerHandle | None = None
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

    def speaks(self, key: str) -> bool:
        """A listener is heard from now on, and granted something when its turn comes; False for one that may not be."""
        heard = self._audience.speaks(key, empty=not self.have.count)
        self._grant()
        return heard

    def said(self, key: str, word: Word) -> None:
        """A listener says something. See ``p2pstore.swarm.granter``."""
        say(self._audience.granter, key, word, self._loop.time())
        self._grant()

    def hushed(self, key: str) -> None:
        """A listener is not heard any more."""
        self._audience.hushed(key)
        self._grant()

    @contextmanager
    def listen(self, *, seeds: bool = True, grants: bool = True) -> Iterator[Listener]:
        """News from now on. Take ``have`` after entering: a chunk may then come twice, but none is missed.

        ``seeds``: who listens passes on what it gets. ``grants``: it takes grants, once it ``speaks``.
        """
        listener = Listener()
        self._listeners[listener.key] = listener
        self._share(self._audience.join(listener.key, seeds=seeds, whole=self.have.full, grants=grants))
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
        self._grant()

    def _grant(self) -> None:
        """Say what is granted now, and look again when time alone may have changed that."""
        if self._granting is not None:
            self._granting.cancel()
            self._granting = None
        granter = self._audience.granter
        for grant in granter.grants(self._loop.time()):
            self._listeners[grant.key].put(grant)
        if granter.due < math.inf:
            self._granting = self._loop.call_at(granter.due, self._grant)

    def _gather(self, run: range) -> None:
        self._gathered.append(run)
        if self._audience.granter.eager:
            self._flush()
        elif len(self._gathered) == 1:
            self._loop.call_later(GATHER_SECONDS, self._flush)

    def _flush(self) -> None:
        if self._gathered:
            self._tell(tuple(self._gathered))
            self._gathered.clear()
            self._audience.granter.told()
            self._grant()

    def _tell(self, item: News | None) -> None:
        for listener in self._listeners.values():
            listener.put(item)
