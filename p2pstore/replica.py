"""A replica: what this node has of one object, where peers read it, and who wants to hear of new chunks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from p2pstore.bitmap import Bitmap
from p2pstore.manifest import Manifest

MAX_PENDING = 65536
"""News that wait for one slow listener; one that falls behind further is cut off, and may come again."""


class News(NamedTuple):
    """``kind`` is ``have`` (these chunks are verified now) or ``want`` (they are being fetched from an origin)."""

    kind: str
    run: range


class Listener:
    """A queue of news for one peer, and None when the replica is withdrawn."""

    def __init__(self) -> None:
        self.news: asyncio.Queue[News | None] = asyncio.Queue(MAX_PENDING)

    def put(self, item: News | None) -> None:
        """Add news; a listener too slow to take it is told that the replica is gone."""
        if self.news.full():
            while not self.news.empty():
                self.news.get_nowait()
            item = None
        self.news.put_nowait(item)


class Replica:
    """One object on this node, whole or in part. ``address`` is 0 while nothing of it can be read.

    ``have`` is written by whoever verifies chunks, and read by those who serve them.
    """

    def __init__(self, manifest: Manifest, have: Bitmap, role: str, loop: asyncio.AbstractEventLoop) -> None:
        self.manifest = manifest
        self.have = have
        self.role = role
        self.address = 0
        self._claims: set[int] = set()
        self._lock = threading.Lock()
        self._loop = loop
        self._listeners: set[Listener] = set()

    @property
    def state(self) -> str:
        """``complete`` or ``partial``."""
        return "complete" if self.have.full else "partial"

    def servable(self, offset: int, length: int) -> bool:
        """Whether every chunk that a range of the object touches is verified. Any thread."""
        return self.have.has_all(self.manifest.chunks_of(offset, length))

    def landed(self, run: range) -> None:
        """These chunks are verified now: tell the listeners. Any thread."""
        with self._lock:
            self._claims.difference_update(run)
        self._spread(News("have", run))

    def claimed(self, run: range) -> None:
        """These are being fetched from an origin: tell the listeners. Any thread."""
        with self._lock:
            self._claims.update(run)
        self._spread(News("want", run))

    def claims(self) -> list[int]:
        """What is being fetched from origins now."""
        with self._lock:
            return sorted(self._claims)

    def _spread(self, news: News) -> None:
        if self._listeners:
            self._loop.call_soon_threadsafe(self._tell, news)

    def withdrawn(self) -> None:
        """The replica is served no more: tell the listeners."""
        self._tell(None)

    def _tell(self, item: News | None) -> None:
        for listener in self._listeners:
            listener.put(item)

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        """News from now on. Take ``have`` after entering: a chunk may then come twice, but none is missed."""
        listener = Listener()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
