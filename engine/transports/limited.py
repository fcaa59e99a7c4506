"""Receiving no faster than a limit allows: a sink that makes the channel wait, and a channel that asks for little.

A peer that has to wait long for its bytes to be taken gives the receiver up. So under a limit no more is asked for at
once than is taken soon: what waits then waits here, as requests that are not sent yet.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.net.rate import RateLimit, never
from engine.transports.base import Channel, CloningSink, Sink, pour

if TYPE_CHECKING:
    from engine.memory.region import Region

ASKED_SECONDS = 0.25
"""Under a limit, so much time's worth of bytes is under way on a channel."""

MIN_ASKED = 128 * 1024
"""Bytes that may always be under way: the buffers of sockets hold them, so that no peer waits, however low it is."""


class LimitedSink:
    """A sink that fills another no faster than a limit allows; the sender feels it as a slow receiver."""

    def __init__(
        self,
        sink: Sink,
        limit: RateLimit,
        over: Callable[[], bool] = never,
        *,
        mark: float = math.inf,
        on_mark: Callable[[], None] | None = None,
    ) -> None:
        """``over`` says whether the bytes are not wanted any more, so that nobody waits for the limit's sake.

        ``on_mark`` is called once, when ``mark`` bytes have come.
        """
        self._sink = sink
        self._limit = limit
        self._over = over
        self._mark = mark
        self._on_mark = on_mark
        self.came = 0
        """Bytes that came so far."""
        self.filling = False
        """Whether the other sink is at work on bytes that came."""

    def buffer(self, remaining: int) -> memoryview:
        """See ``Sink.buffer``. Room up to the mark: that would else be told of with the last byte that fits."""
        if self.came < self._mark < self.came + remaining:
            remaining = math.ceil(self._mark) - self.came
        return self._sink.buffer(self._limit.piece(remaining))

    def filled(self, count: int) -> None:
        """See ``Sink.filled``."""
        self._count(count)
        self.filling = True
        self._sink.filled(count)
        self.filling = False
        self._limit.spend(count, self._over)

    def take(self, data: memoryview) -> None:
        """See ``TakingSink.take``."""
        self._count(len(data))
        self.filling = True
        pour(self._sink, data)
        self.filling = False
        self._limit.spend(len(data), self._over)

    def clone(self, descriptor: int, offset: int, remaining: int) -> int:
        """See ``CloningSink.clone``; no byte is moved, so the limit has no say."""
        count = self._sink.clone(descriptor, offset, remaining) if isinstance(self._sink, CloningSink) else 0
        self._count(count)
        return count

    def _count(self, count: int) -> None:
        self.came += count
        if self.came >= self._mark and self._on_mark is not None:
            self._mark = math.inf
            self._on_mark()


class LimitedChannel(Channel):
    """A channel that asks a streamed one for as much as a limit lets through soon, piece by piece."""

    def __init__(self, channel: Channel, limit: RateLimit) -> None:
        """It owns ``channel``."""
        self._channel = channel
        self._limit = limit
        self._lengths: deque[int] = deque()  # of the ranges that were submitted
        self._wanted: deque[tuple[int, int]] = deque()  # what was not asked for yet
        self._asked: deque[int] = deque()  # the lengths of the pieces under way
        self._under_way = 0  # their sum

    def submit(self, address: int, length: int, place: Region | None = None) -> None:
        """See ``Channel.submit``."""
        if place is not None:
            place.close()
        self._lengths.append(length)
        self._wanted.append((address, length))
        self._ask()

    def receive(self, sink: Sink) -> None:
        """See ``Channel.receive``."""
        left = self._lengths.popleft()
        while left:
            piece = self._asked[0]
            self._channel.receive(sink)
            self._asked.popleft()
            self._under_way -= piece
            left -= piece
            self._ask()

    def close(self) -> None:
        """See ``Channel.close``."""
        self._channel.close()

    def _ask(self) -> None:
        """Ask for pieces of half of what may be under way, so that one is while another is received."""
        while self._wanted:
            address, length = self._wanted[0]
            piece = length
            if rate := self._limit.rate:
                most = max(MIN_ASKED, int(rate * ASKED_SECONDS))
                piece = min(length, most // 2)
                if self._under_way + piece > most:
                    return
            self._channel.submit(address, piece)
            self._asked.append(piece)
            self._under_way += piece
            if piece < length:
                self._wanted[0] = address + piece, length - piece
            else:
                self._wanted.popleft()
