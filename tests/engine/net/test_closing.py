"""An end that is begun once and waited for by all, whoever asks and wherever."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from engine.errors import Closed, ForkedProcess
from engine.net import closing
from engine.net.closing import Closing, close_all
from tests.forking import WAIT, in_child


class Thing:
    """Something that ends when it is allowed to."""

    def __init__(self) -> None:
        self.ends = 0
        self.may_end = threading.Event()
        self.closing = Closing("this thing", self.end)

    def end(self) -> None:
        assert self.may_end.wait(WAIT)
        self.ends += 1


def test_it_ends_once_and_all_wait_for_it() -> None:
    thing = Thing()
    thing.closing.check()
    assert not thing.closing.begun
    found: list[bool] = []
    others = [threading.Thread(target=lambda: found.append(thing.closing.close(WAIT))) for _ in range(5)]
    for other in others:
        other.start()
    assert not thing.closing.close(0.05), "it has not ended"
    assert thing.closing.begun
    with pytest.raises(Closed, match="this thing was closed"):
        thing.closing.check()
    thing.may_end.set()
    for other in others:
        other.join(WAIT)
    assert thing.closing.close(WAIT)
    assert (thing.ends, found) == (1, [True] * 5)


def test_it_can_be_begun_without_waiting() -> None:
    thing = Thing()
    assert not thing.closing.close(WAIT, wait=False)
    thing.may_end.set()
    assert thing.closing.close(WAIT)


def test_the_end_itself_may_close_again() -> None:
    made: list[Closing] = []
    made.append(Closing("this thing", lambda: made[0].close(WAIT) and None))
    assert made[0].close(WAIT)


def test_what_the_end_raises_is_raised_once() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    made = Closing("this thing", fail)
    with pytest.raises(ZeroDivisionError):
        made.close(WAIT)
    assert made.close(WAIT)


def test_where_no_thread_is_to_be_had_the_caller_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    thing = Thing()
    thing.may_end.set()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert thing.closing.close(WAIT)
    assert thing.ends == 1


def test_a_child_ends_nothing_and_is_refused() -> None:
    thing = Thing()
    assert in_child(lambda: thing.closing.close(WAIT))
    assert in_child(close_all) is None
    with pytest.raises(ForkedProcess):
        in_child(thing.closing.check)
    assert not thing.ends
    thing.may_end.set()
    assert thing.closing.close(WAIT)


def test_the_exit_ends_all_at_once_and_waits_only_so_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    never, soon = Thing(), Thing()
    soon.may_end.set()

    def fail() -> None:
        raise ZeroDivisionError

    failing = Closing("another thing", fail)
    times = iter([1000.0])

    def clock() -> float:
        """The time is over once those that can end have, on however slow a day."""
        for each in (soon.closing, failing):
            if each.begun:
                each._thread.join(WAIT)
        return next(times, 1000.0 + closing.EXIT_SECONDS)

    monkeypatch.setattr(closing, "time", SimpleNamespace(monotonic=clock))
    with caplog.at_level(logging.ERROR):
        close_all()
    assert never.closing.begun
    assert soon.closing.close(WAIT)
    assert failing.begun
    assert "another thing could not be closed" in caplog.text
    never.may_end.set()
    assert never.closing.close(WAIT)


def test_the_interpreters_exit_ends_what_is_open() -> None:
    program = """
from engine.net.closing import Closing
thing = Closing("this thing", lambda: print("ended"))
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=WAIT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")
