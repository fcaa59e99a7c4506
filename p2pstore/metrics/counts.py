"""What a node counts while it runs, for those who look at it from outside. Pure, and for one event loop."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from p2pstore.metrics.histogram import Histogram

OK, FAILED, CANCELLED = "ok", "failed", "cancelled"

OUTCOMES = (OK, FAILED, CANCELLED)
"""How an operation ends."""

LONG_BOUNDS = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""In seconds, of operations that move objects."""


class Operation:
    """How often something was begun, and how it ended. What was begun and has not ended is under way."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` tells seconds and never goes back."""
        self.started = 0
        self.seconds = Histogram(LONG_BOUNDS)
        """Of those that ended well."""
        self._finished = dict.fromkeys(OUTCOMES, 0)
        self._clock = clock

    @property
    def finished(self) -> Mapping[tuple[str, ...], float]:
        """By outcome; each of ``OUTCOMES`` is there."""
        return {(outcome,): count for outcome, count in self._finished.items()}

    @property
    def ended(self) -> int:
        """However they ended."""
        return sum(self._finished.values())

    @contextmanager
    def one(self) -> Iterator[None]:
        """One of them, from the beginning of the block to its end."""
        self.started += 1
        began = self._clock()
        outcome = FAILED
        try:
            yield
            outcome = OK
            self.seconds.observe(self._clock() - began)
        except (asyncio.CancelledError, GeneratorExit):
            outcome = CANCELLED
            raise
        finally:
            self._finished[outcome] += 1


MAX_PEERS = 256
"""Peers of which it is remembered what they sent; those that were silent for longest are forgotten."""


class Counts:
    """Since the node started; bytes are those of objects."""

    def __init__(self) -> None:
        self.gets = Operation()
        self.registers = Operation()
        self.verifies = Operation()
        self.peer_requests = Operation()
        self.listens = Operation()
        """Of peers that hear what of an object is here, for as long as they get it."""
        self.by_peer: OrderedDict[str, int] = OrderedDict()
        """Verified bytes that each peer sent, the one that sent something last at the end."""
        self.registered = 0
        """Objects."""
        self.pulled: Counter[str] = Counter()
        """Verified bytes that gets received, by transport."""
        self.reused = 0
        """Bytes that gets did not have to move."""

    def came_from(self, peer: str, count: int) -> None:
        """So many more verified bytes came from a peer."""
        self.by_peer[peer] = self.by_peer.get(peer, 0) + count
        self.by_peer.move_to_end(peer)
        if len(self.by_peer) > MAX_PEERS:
            self.by_peer.popitem(last=False)
