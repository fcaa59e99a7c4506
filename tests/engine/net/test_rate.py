"""Over any stretch of time no more goes through than the limit and one burst."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.net.rate import BURST_SECONDS, MAX_SLEEP_SECONDS, MIN_PIECE, Bucket, RateLimit


@given(st.integers(1, 10**9), st.lists(st.tuples(st.integers(1, 10**7), st.floats(0, 2)), min_size=1, max_size=50))
def test_a_bucket_keeps_to_its_rate(rate: int, story: list[tuple[int, float]]) -> None:
    bucket = Bucket(rate)
    now, moved = 1000.0, 0
    for count, pause in story:
        now += pause
        moved += count
        now += bucket.spend(count, now)
        assert moved <= rate * (now - 1000.0 + BURST_SECONDS) * 1.0001 + 1


def test_no_limit_costs_nothing() -> None:
    limit = RateLimit()
    assert limit.piece(1 << 30) == 1 << 30
    limit.spend(1 << 40)
    assert limit.rate == 0


class Time:
    """A clock that only sleeping moves; of the threads that share it one goes on at a time, whose turn comes first."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self._moves = threading.Condition()
        self._sleepers: list[tuple[float, int]] = []
        self._count = 0
        self._awake = 1

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._moves:
            self.slept.append(seconds)
            self._count += 1
            turn = (self.now + seconds, self._count)
            heapq.heappush(self._sleepers, turn)
            self._awake -= 1
            self._next()
            assert self._moves.wait_for(lambda: turn not in self._sleepers, timeout=60)

    def _next(self) -> None:
        if not self._awake and self._sleepers:
            self.now = max(self.now, heapq.heappop(self._sleepers)[0])
            self._awake = 1
            self._moves.notify_all()

    def run(self, works: Sequence[Callable[[], None]]) -> None:
        """Run them in threads, to their end."""
        self._awake = len(works)

        def thread(work: Callable[[], None]) -> None:
            try:
                self.sleep(0.0)  # so that they begin one after the other
                work()
            finally:
                with self._moves:
                    self._awake -= 1
                    self._next()

        threads = [threading.Thread(target=thread, args=(work,)) for work in works]
        for each in threads:
            each.start()
        for each in threads:
            each.join(60)
            assert not each.is_alive()


@pytest.mark.parametrize("threads", [1, 8, 16, 32])
@pytest.mark.parametrize("rate", [100_000, 1_000_000, 50_000_000])
def test_the_limit_holds_for_any_number_of_threads(threads: int, rate: int) -> None:
    """D10: a call slept half a second at most and forgot the rest, so that 32 threads went three times too fast."""
    time = Time()
    limit = RateLimit(rate, clock=time.clock, sleep=time.sleep)
    moved: list[int] = []

    def work() -> None:
        while time.now < 1010.0:
            piece = limit.piece(1 << 30)
            moved.append(piece)
            limit.spend(piece)

    time.run([work] * threads)
    assert 0.95 < sum(moved) / (time.now - 1000.0) / rate < 1.01


def test_a_limit_changes_at_once() -> None:
    time = Time()
    limit = RateLimit(1000, clock=time.clock, sleep=time.sleep)
    time.run([lambda: limit.spend(10_000), lambda: limit.set(0)])
    assert sum(time.slept) <= MAX_SLEEP_SECONDS
    limit.spend(10_000)
    assert time.now <= 1000.0 + MAX_SLEEP_SECONDS
    limit.set(1 << 30)
    assert limit.piece(1 << 30) == int((1 << 30) * BURST_SECONDS)
    limit.set(1)
    assert limit.piece(1 << 30) == MIN_PIECE


def test_nobody_waits_for_what_is_over() -> None:
    time = Time()
    limit = RateLimit(1000, clock=time.clock, sleep=time.sleep)
    time.run([lambda: limit.spend(10_000, over=lambda: time.now >= 1003.0)])
    assert 1003.0 <= time.now <= 1003.0 + 2 * MAX_SLEEP_SECONDS


def test_threads_share_it() -> None:
    limit = RateLimit(50 << 20)
    threads = [threading.Thread(target=lambda: [limit.spend(64 << 10) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
