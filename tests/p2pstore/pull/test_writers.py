"""Whoever writes last lets go, and nobody begins once it has ended."""

from __future__ import annotations

import threading

import pytest

from p2pstore.errors import Interrupted
from p2pstore.pull.writers import Writers

WAIT = 60.0


class Told:
    def __init__(self) -> None:
        self.times = 0
        self.writers = Writers(self.let_go)

    def let_go(self) -> None:
        self.times += 1


def test_with_nobody_in_it_is_let_go_of_at_once() -> None:
    told = Told()
    told.writers.enter()
    told.writers.leave()
    assert told.times == 0
    assert told.writers.end(0)
    assert told.times == 1


def test_the_last_one_out_lets_go() -> None:
    told = Told()
    told.writers.enter()
    told.writers.enter()
    assert not told.writers.end(0)
    told.writers.leave()
    assert told.times == 0
    told.writers.leave()
    assert told.times == 1
    assert told.writers.end(0)
    assert told.times == 1


def test_nobody_comes_in_once_it_has_ended() -> None:
    told = Told()
    told.writers.enter()
    told.writers.check()
    told.writers.end(0)
    with pytest.raises(Interrupted):
        told.writers.check()
    with pytest.raises(Interrupted):
        told.writers.enter()
    told.writers.leave()
    assert told.times == 1


def test_stopping_lets_go_of_nothing() -> None:
    told = Told()
    told.writers.enter()
    assert not told.writers.stop(0)
    with pytest.raises(Interrupted):
        told.writers.enter()
    told.writers.leave()
    assert told.writers.stop(0)
    assert told.times == 0
    assert told.writers.end(0)
    assert told.times == 1


def test_whoever_ends_it_hears_of_the_last_one() -> None:
    told = Told()
    told.writers.enter()
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(told.writers.end(WAIT)))
    waiting.start()
    told.writers.leave()
    waiting.join(WAIT)
    assert found == [True]
    assert told.times == 1


def test_of_many_threads_one_lets_go() -> None:
    for _ in range(100):
        told = Told()
        told.writers.enter()
        together = threading.Barrier(3)

        def leave(told: Told = told, together: threading.Barrier = together) -> None:
            together.wait(WAIT)
            told.writers.leave()

        def end(told: Told = told, together: threading.Barrier = together) -> None:
            together.wait(WAIT)
            assert told.writers.end(WAIT)

        threads = [threading.Thread(target=work) for work in (leave, end, end)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        assert told.times == 1
