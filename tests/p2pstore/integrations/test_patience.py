"""Nobody waits longer than was said, and what is late keeps what it uses until it returns."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from p2pstore.integrations.patience import Patience

LONG = 60.0


@pytest.fixture
def patience() -> Iterator[Patience]:
    made = Patience("calls of a test")
    yield made
    made.close()


def test_what_comes_in_time_is_returned_and_raised(patience: Patience) -> None:
    over: list[str] = []
    assert patience.call(lambda: 7, LONG, lambda: over.append("x")) == 7
    with pytest.raises(KeyError):
        patience.call(lambda: {}["x"], LONG)
    with pytest.raises(TimeoutError, match="its own"):
        patience.call(lambda: _raise(TimeoutError("its own")), LONG)
    assert (over, patience.late, patience.waiting) == ([], 0, False)


def _raise(error: Exception) -> None:
    raise error


def test_what_is_late_is_left_alone_and_nobody_waits_meanwhile(patience: Patience) -> None:
    go, over = threading.Event(), threading.Event()
    assert patience.call(lambda: go.wait(LONG), 0.01, over.set) is None
    assert patience.waiting
    assert not over.is_set()
    left = threading.Event()
    began = time.monotonic()
    assert patience.call(lambda: 7, LONG, left.set) is None, "it is not even made"
    assert time.monotonic() - began < LONG / 2
    assert left.is_set()
    assert patience.late == 2
    go.set()
    assert over.wait(LONG)
    _until(lambda: not patience.waiting)
    assert patience.call(lambda: 7, LONG) == 7


def test_a_late_one_that_fails_is_no_matter(patience: Patience) -> None:
    go = threading.Event()

    def fail() -> int:
        go.wait(LONG)
        raise OSError("later")

    over = threading.Event()
    assert patience.call(fail, 0.01, over.set) is None
    go.set()
    assert over.wait(LONG)
    _until(lambda: not patience.waiting)


def _until(true: object) -> None:
    end = time.monotonic() + LONG
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.001)
