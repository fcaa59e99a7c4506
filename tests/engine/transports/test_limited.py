"""A limited sink passes on what it is given, and the limit's waits with it; a limited channel asks for little."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from engine.errors import PeerUnreachable
from engine.net.rate import BURST_SECONDS, MAX_SLEEP_SECONDS, RateLimit
from engine.transports.base import Sink
from engine.transports.limited import ASKED_SECONDS, MIN_ASKED, LimitedChannel, LimitedSink
from engine.transports.mock import MockChannel, MockTransport

RATE = 1_000_000


class Taken:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self._room = bytearray(1 << 20)

    def buffer(self, remaining: int) -> memoryview:
        return memoryview(self._room)[:remaining]

    def filled(self, count: int) -> None:
        self.bytes += self._room[:count]


class Cloned(Taken):
    """A sink that takes whole files, too."""

    def clone(self, descriptor: int, offset: int, remaining: int) -> int:
        return remaining


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def limit(time: Time) -> RateLimit:
    return RateLimit(RATE, clock=time.clock, sleep=time.sleep)


def test_received_bytes_come_no_faster_than_the_limit(time: Time, limit: RateLimit) -> None:
    taken = Taken()
    sink = LimitedSink(taken, limit)
    left = 3 * RATE
    while left:
        room = sink.buffer(left)
        assert len(room) <= RATE * BURST_SECONDS
        sink.filled(len(room))
        left -= len(room)
    assert len(taken.bytes) == 3 * RATE
    assert 3 - BURST_SECONDS <= time.now - 1000.0 <= 3.01


def test_a_large_piece_that_is_there_already_is_paid_in_full(time: Time, limit: RateLimit) -> None:
    """D10: of each piece that a device had filled, only half a second was paid."""
    taken = Taken()
    sink = LimitedSink(taken, limit)
    for _ in range(4):
        sink.take(memoryview(b"x" * RATE))
    assert taken.bytes == b"x" * (4 * RATE)
    assert 4 - BURST_SECONDS <= time.now - 1000.0 <= 4.01


@pytest.mark.parametrize("mark", [1, 700.25, 999, 1000])
def test_the_mark_is_told_of_as_soon_as_it_has_come(limit: RateLimit, mark: float) -> None:
    """Room beyond it would be filled first, by who waits for all that fits."""
    came: list[int] = []
    sink = LimitedSink(Taken(), limit, mark=mark, on_mark=lambda: came.append(sink.came))
    left = 1000
    while left:
        count = len(sink.buffer(left))
        sink.filled(count)
        left -= count
    assert came == [math.ceil(mark)]


def test_a_receiver_that_is_given_up_does_not_wait(time: Time, limit: RateLimit) -> None:
    sink = LimitedSink(Taken(), limit, over=lambda: True)
    sink.take(memoryview(bytes(100 * RATE)))
    assert time.now - 1000.0 <= MAX_SLEEP_SECONDS


@pytest.mark.parametrize(("made", "cloned"), [(Taken, 0), (Cloned, 100 * RATE)])
def test_cloning_moves_no_byte_and_costs_nothing(
    time: Time, limit: RateLimit, made: Callable[[], Taken], cloned: int
) -> None:
    assert LimitedSink(made(), limit).clone(0, 0, 100 * RATE) == cloned
    assert time.now == 1000.0


CONTENT = bytes(range(251)) * 20_000  # 5 MB


class Counted(MockChannel):
    """A channel that counts the bytes that it was asked for, and has not brought yet."""

    under_way = 0
    most = 0

    def submit(self, address: int, length: int, place: object = None) -> None:
        super().submit(address, length)
        self.under_way += length
        self.most = max(self.most, self.under_way)

    def receive(self, sink: Sink) -> None:
        at = self.under_way - self._submitted[0][1]
        super().receive(sink)
        self.under_way = at


@pytest.fixture
def peer() -> Counted:
    return Counted(MockTransport({4096: CONTENT}), "peer")


@pytest.mark.parametrize("rate", [1, 20_000, 100 * MIN_ASKED])
def test_no_more_is_asked_for_than_a_limit_lets_through_soon(peer: Counted, rate: int) -> None:
    """What a sender has sent and cannot get rid of makes it give up the receiver, who only waits for its own limit."""
    channel = LimitedChannel(peer, RateLimit(rate))
    channel.submit(4096, 3_000_001)
    channel.submit(4096 + 3_000_001, 1_000_000)
    first, second = Taken(), Taken()
    channel.receive(first)
    assert first.bytes == CONTENT[:3_000_001]
    channel.receive(second)
    assert second.bytes == CONTENT[3_000_001:4_000_001]
    assert 0 < peer.most <= max(MIN_ASKED, rate * ASKED_SECONDS)
    assert peer.under_way == 0


def test_without_a_limit_all_is_asked_for_at_once(peer: Counted) -> None:
    channel = LimitedChannel(peer, RateLimit())
    channel.submit(4096, 3_000_000)
    channel.submit(4096, 2_000_000)
    assert peer.most == 5_000_000
    taken = Taken()
    channel.receive(taken)
    channel.receive(taken)
    assert taken.bytes == CONTENT[:3_000_000] + CONTENT[:2_000_000]


def test_a_limit_may_come_and_go_in_the_middle_of_a_range(peer: Counted) -> None:
    limit = RateLimit(20_000)
    channel = LimitedChannel(peer, limit)

    class Changing(Taken):
        def filled(self, count: int) -> None:
            super().filled(count)
            limit.set(0 if limit.rate else 20_000)

    taken = Changing()
    for _ in range(3):
        channel.submit(4096, len(CONTENT))
    for _ in range(3):
        channel.receive(taken)
    assert taken.bytes == CONTENT * 3


def test_closing_a_limited_channel_closes_what_it_asks(peer: Counted) -> None:
    channel = LimitedChannel(peer, RateLimit(20_000))
    channel.submit(4096, 1_000_000)
    channel.close()
    with pytest.raises(PeerUnreachable):
        channel.receive(Taken())
