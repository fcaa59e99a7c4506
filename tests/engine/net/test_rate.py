"""Over any stretch of time no more goes through than the limit and one burst."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.net import rate as module
from engine.net.rate import BURST_SECONDS, MIN_PIECE, Bucket, RateLimit


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


def test_a_limit_changes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    limit = RateLimit(1000)
    limit.spend(10_000)
    assert slept == [module.MAX_WAIT]
    limit.set(0)
    limit.spend(10_000)
    assert len(slept) == 1
    limit.set(1 << 30)
    assert limit.piece(1 << 30) == int((1 << 30) * BURST_SECONDS)
    limit.set(1)
    assert limit.piece(1 << 30) == MIN_PIECE


def test_threads_share_it() -> None:
    limit = RateLimit(50 << 20)
    threads = [threading.Thread(target=lambda: [limit.spend(64 << 10) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
