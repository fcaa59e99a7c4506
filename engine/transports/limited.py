"""A sink that takes bytes no faster than a limit allows."""

from __future__ import annotations

from collections.abc import Callable

from engine.net.rate import RateLimit, never
from engine.transports.base import CloningSink, Sink, pour


class LimitedSink:
    """A sink that fills another no faster than a limit allows; the sender feels it as a slow receiver."""

    def __init__(self, sink: Sink, limit: RateLimit, over: Callable[[], bool] = never) -> None:
        """``over`` says whether the bytes are not wanted any more, so that nobody waits for the limit's sake."""
        self._sink = sink
        self._limit = limit
        self._over = over

    def buffer(self, remaining: int) -> memoryview:
        """See ``Sink.buffer``."""
        return self._sink.buffer(self._limit.piece(remaining))

    def filled(self, count: int) -> None:
        """See ``Sink.filled``."""
        self._sink.filled(count)
        self._limit.spend(count, self._over)

    def take(self, data: memoryview) -> None:
        """See ``TakingSink.take``."""
        pour(self._sink, data)
        self._limit.spend(len(data), self._over)

    def clone(self, descriptor: int, offset: int, remaining: int) -> int:
        """See ``CloningSink.clone``; no byte is moved, so the limit has no say."""
        return self._sink.clone(descriptor, offset, remaining) if isinstance(self._sink, CloningSink) else 0
