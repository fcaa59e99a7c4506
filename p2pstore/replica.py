"""A replica: what this node has of one object, where peers read it, and who wants to hear of new chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from p2pstore.bitmap import Bitmap
from p2pstore.manifest import Manifest

MAX_PENDING = 65536
"""Have-events that wait for one slow listener; one that falls behind further is cut off, and may come again."""


class Listener:
    """A queue of news for one peer: lists of chunks, and None when the replica is withdrawn."""

    def __init__(self) -> None:
        self.news: asyncio.Queue[range | None] = asyncio.Queue(MAX_PENDING)

    def put(self, item: range | None) -> None:
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
        if self._listeners:
            self._loop.call_soon_threadsafe(self._tell, run)

    def withdrawn(self) -> None:
        """The replica is served no more: tell the listeners."""
        self._tell(None)

    def _tell(self, item: range | None) -> None:
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
