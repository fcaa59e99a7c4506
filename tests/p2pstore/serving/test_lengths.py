"""Outputs are expected to be as long as those of requests like it."""

from __future__ import annotations

import pytest

from p2pstore.serving import lengths
from p2pstore.serving.lengths import FIRST_GUESS, OutputLengths


def test_the_first_key_that_is_known_decides_and_the_limit_bounds() -> None:
    seen = OutputLengths()
    assert seen.expected(["a"], None) == FIRST_GUESS
    assert seen.expected(["a"], 10) == 10
    seen.seen(["a", "b"], 100)
    seen.seen(["b"], 300)
    assert seen.expected(["a", "b"], None) == 100
    assert seen.expected(["c", "b"], None) == 200
    assert seen.expected(["b"], 150) == 150


def test_who_is_not_known_is_like_all() -> None:
    seen = OutputLengths()
    for _ in range(500):
        seen.seen([], 40)
    assert seen.expected(["a"], None) == pytest.approx(40, rel=0.01)


def test_the_longest_unseen_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "MAX_KEYS", 2)
    seen = OutputLengths()
    for key in ("a", "b", "a", "c"):
        seen.seen([key], 10)
    assert seen.expected(["b"], None) != 10
    assert seen.expected(["a"], None) == seen.expected(["c"], None) == 10
