"""A replica: what this node has of one object, where peers read it, and who wants to hear of new chunks."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from p2pstore.cluster.batch_queue import BatchQueue
from p2pstore.cluster.news import NOTHING, News, Shared
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.manifest import Manifest
from p2pstore.swarm.audience import Audience
from p2pstore.swarm.events import Word
from p2pstore.swarm.gateway import Claim
from p2pstore.swarm.untold import Untold
from p2pstore.swarm.words import say

MAX_PENDING = 65536
"""News that wait for one slow listener; one that falls behind further is cut off, and may come again."""

GATHER_SECONDS = 0.005
"""Chunks that are verified within this are told of together to those who choose for themselves what they ask for."""


@dataclass(eq=False)
class Listener:
    """A queue of news for one peer, and None when the replica is withdrawn.

    ``shared``: it shares an origin with another that passes on what it gets, as far as it was told.
    """

    shared: bool = False
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    news: BatchQueue[News | None] = field(default_factory=lambda: BatchQueue(MAX_PENDING))
    on_news: Callable[[], None] | None = None
    """Called when there are news, by who does not ``hear`` but takes them from ``news``."""
    _timer: asyncio.TimerHandle | None = None
    _silent_at: float = math.inf

    async def hear(self, patience: float) -> list[News | None]:
        """All news since, one at least; None is the end, ``NOTHING`` comes after ``patience`` seconds without any."""
        if not len(self.news):
            self._expect(patience)
        heard = await self.news.take()
        self._silent_at = math.inf
        return heard

    def close(self) -> None:
        """Nobody hears any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _expect(self, patience: float) -> None:
        """See to it that silence is heard. The timer of before goes on where it ends early enough.

        There are as many of these as chunks and listeners, so that making a timer for each would be felt.
        """
        loop = asyncio.get_running_loop()
        self._silent_at = loop.time() + patience
        if self._timer is None or self._timer.when() > self._silent_at:
            self.close()
            self._timer = loop.call_at(self._silent_at, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Time has passed: it was silent, or not for long enough yet, or nobody waits."""
        self._timer = None
        if self._silent_at > loop.time():
            if self._silent_at < math.inf:
                self._timer = loop.call_at(self._silent_at, self._look, loop)
        elif not len(self.news):
            self.news.put(NOTHING)

    def put(self, item: News | None, *, more: bool = False) -> None:
        """Add news; a listener too slow to take it is told that the replica is gone. ``more`` follows at once."""
        if self.news.full:
            self.news.drain()
            item = None
        self.news.put(item)
        if self.on_news is not None and not more:
            self.on_news()


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
        self._claims: dict[int, Claim] = {}
        self._loop = loop
        self._listeners: dict[str, Listener] = {}
        self._audience = Audience(self._lengths, random.Random())  # noqa: S311 - spreads load, guards nothing
        self._granting: asyncio.TimerHandle | None = None
        self._untold = Untold()
        self._prompt: asyncio.TimerHandle | None = None
        self._late: asyncio.TimerHandle | None = None

    @property
    def state(self) -> str:
        """``complete`` or ``partial``."""
        return "complete" if self.have.full else "partial"

    @property
    def crowded(self) -> bool:
        """Whether nobody more should listen."""
        return self._audience.full

    @property
    def claimed(self) -> list[Claim]:
        """Who the gateways of this node's zone are, as far as the get that fills it knows."""
        return list(self._claims.values())

    def servable(self, offset: int, length: int) -> bool:
        """Whether every chunk that a range of the object touches is verified. Any thread."""
        return self.have.has_all(self.manifest.chunks_of(offset, length))

    def landed(self, run: range) -> None:
        """These chunks are verified now: tell the listeners. Any thread."""
        if self._listeners:
            self._loop.call_soon_threadsafe(self._gather, run)

    def claims(self, claim: Claim) -> None:
        """The get that fills it knows otherwise of a gateway: tell the listeners. Any thread."""
        self._loop.call_soon_threadsafe(self._on_claim, claim)

    def _on_claim(self, claim: Claim) -> None:
        self._claims[claim.share] = claim
        for listener in self._listeners.values():
            listener.put(claim)

    def withdrawn(self, reason: str = "") -> None:
        """The replica is served no more: tell the listeners, and why."""
        self.reason = reason
        self._tell_all()
        for listener in self._listeners.values():
            listener.put(None)

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
    def listen(self, *, seeds: bool = True, grants: bool = True, abroad: bool = False) -> Iterator[Listener]:
        """News from now on. Take ``have`` after entering: a chunk may then come twice, but none is missed.

        ``seeds``: who listens passes on what it gets. ``grants``: it takes grants, once it ``speaks``. ``abroad``: it
        is in another zone.
        """
        listener = Listener()
        self._listeners[listener.key] = listener
        self._untold.join(listener.key)
        whole = self.have.full
        self._share(self._audience.join(listener.key, seeds=seeds, whole=whole, grants=grants, abroad=abroad))
        listener.shared = self._audience.shared(listener.key)
        try:
            yield listener
        finally:
            listener.close()
            del self._listeners[listener.key]
            self._untold.leave(listener.key)
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
        granter = self._audience.granter
        for grant in granter.grants(self._loop.time()):
            self._tell(grant.key, more=True)  # first, so that it knows what there is
            self._listeners[grant.key].put(grant)
        due = granter.due
        # A timer that ends too early looks again; most grants end long before, and would each have made another.
        if due < math.inf and (self._granting is None or due < self._granting.when()):
            if self._granting is not None:
                self._granting.cancel()
            self._granting = self._loop.call_at(due, self._look_again)

    def _look_again(self) -> None:
        self._granting = None
        self._grant()

    def _gather(self, run: range) -> None:
        """These chunks are verified: who is granted something is told with that, the others later."""
        granter = self._audience.granter
        self._untold.add(run)
        granter.told()
        self._grant()
        if self._prompt is None and any(key not in granter for key in self._listeners):
            self._prompt = self._loop.call_later(GATHER_SECONDS, self._tell_prompt)
        if self._late is None:
            self._late = self._loop.call_later(granter.late, self._tell_all)

    def _tell_prompt(self) -> None:
        """Tell those to whom nothing is granted."""
        self._prompt = None
        for key in self._listeners:
            if key not in self._audience.granter:
                self._tell(key)

    def _tell_all(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
        for key in self._listeners:
            self._tell(key)

    def _tell(self, key: str, *, more: bool = False) -> None:
        if news := self._untold.take(key):
            self._listeners[key].put(news, more=more)
