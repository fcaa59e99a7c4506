"""Requests are new once, in whatever order they come, and little is remembered."""

from __future__ import annotations

import random

import pytest

from p2pstore.cluster import replays as module
from p2pstore.cluster.replays import WINDOW, Replays

NOW = 1000.0


def test_each_number_of_a_sender_is_new_once() -> None:
    seen = Replays(600)
    numbers = list(range(1, 2000))
    rng = random.Random(4)
    for start in range(0, len(numbers), 100):  # overtaken by some, as over many connections
        part = numbers[start : start + 100]
        rng.shuffle(part)
        assert all(seen.is_new("a", number, NOW, NOW) for number in part)
    rng.shuffle(numbers)
    assert not any(seen.is_new("a", number, NOW, NOW) for number in numbers)
    assert all(seen.is_new("b", number, NOW, NOW) for number in numbers[:100])


def test_a_sender_may_skip_numbers_that_go_to_others() -> None:
    seen = Replays(600)
    for number in (1, 10**6, 10**6 - 1, 10**6 - WINDOW + 1, 10**30):
        assert seen.is_new("a", number, NOW, NOW)
        assert not seen.is_new("a", number, NOW, NOW)


def test_what_is_older_than_the_window_counts_as_seen() -> None:
    seen = Replays(600)
    assert seen.is_new("a", WINDOW + 1, NOW, NOW)
    assert not seen.is_new("a", 1, NOW, NOW)
    assert seen.is_new("a", 2, NOW, NOW)


def test_a_sender_that_is_silent_is_forgotten_when_its_requests_are_too_old() -> None:
    seen = Replays(600)
    assert seen.is_new("a", 1, NOW, NOW)
    assert seen.is_new("b", 1, NOW, NOW + 599)
    assert len(seen) == 2
    assert not seen.is_new("a", 1, NOW, NOW + 600)
    assert seen.is_new("b", 2, NOW + 700, NOW + 1201)
    assert len(seen) == 1


def test_too_many_senders_cost_no_memory_and_let_nothing_in_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SENDERS", 3)
    seen = Replays(600)
    for at in range(10):
        assert seen.is_new(str(at), 1, NOW + at, NOW + at)
        assert len(seen) <= 3
    assert not any(seen.is_new(str(at), 1, NOW + at, NOW + 10) for at in range(10))
    assert seen.is_new("late", 1, NOW + 10, NOW + 10)
    assert not seen.is_new("slow", 1, NOW + 5, NOW + 10)  # the price of it
