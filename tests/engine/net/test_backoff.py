"""Pauses between attempts."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from engine.net.backoff import EVENLY, SOONER, Backoff

SECONDS = st.floats(0.001, 1000.0)


def test_each_failure_doubles_the_pause_up_to_the_last() -> None:
    pauses = Backoff(0.5, 3.0)
    assert [pauses.after(failures) for failures in range(6)] == [0.0, 0.5, 1.0, 2.0, 3.0, 3.0]


def test_one_that_never_grows() -> None:
    assert [Backoff(0.1, 0.1).after(failures) for failures in (1, 2, 3)] == [0.1, 0.1, 0.1]


def test_any_number_of_failures_has_a_pause() -> None:
    assert Backoff(1.0, 30.0).after(100_000) == 30.0


def test_jitter_is_drawn_from_what_is_given() -> None:
    drawn: list[tuple[float, float]] = []

    def highest(low: float, high: float) -> float:
        drawn.append((low, high))
        return high

    assert Backoff(1.0, 8.0, EVENLY, highest).after(2) == 3.0
    assert Backoff(1.0, 8.0, SOONER, highest).after(2) == 2.0
    assert drawn == [EVENLY, SOONER]


def test_the_same_seed_gives_the_same_pauses() -> None:
    first, second = (Backoff(0.1, 2.0, EVENLY, random.Random(7).uniform) for _ in range(2))
    assert [first.after(n) for n in range(1, 9)] == [second.after(n) for n in range(1, 9)]


@given(first=SECONDS, more=SECONDS, failures=st.integers(1, 10**6), seed=st.integers())
def test_a_pause_is_between_its_bounds(first: float, more: float, failures: int, seed: int) -> None:
    pauses = Backoff(first, first + more, EVENLY, random.Random(seed).uniform)
    assert 0.5 * first <= pauses.after(failures) <= 1.5 * (first + more)
