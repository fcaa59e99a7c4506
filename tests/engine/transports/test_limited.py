"""A limited sink passes on what it is given, and the limit's waits with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.net.rate import BURST_SECONDS, MAX_SLEEP_SECONDS, RateLimit
from engine.transports.limited import LimitedSink

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
