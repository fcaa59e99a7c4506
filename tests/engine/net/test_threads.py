"""Loops that go on after an error, starts that the system refuses, and what an owner hears of both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from engine.errors import UsageError
from engine.net import threads as module
from engine.net.threads import Failure, Threads

WAIT = 30.0


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads()
    yield made
    made.stop()
    assert made.join(WAIT)


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_loop_goes_on_after_an_error_and_the_error_is_counted(
    threads: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    turns = iter(["", "first", "", "second", ""])
    ended = threading.Event()

    def step() -> bool:
        turn = next(turns, None)
        if turn:
            raise ValueError(turn)
        if turn is None:
            ended.set()
        return turn is not None

    before = time.time()
    assert threads.serve("turns", step) is not None
    assert ended.wait(WAIT)
    (failure,) = threads.failures
    assert (failure.name, failure.count, failure.error) == ("turns", 2, "ValueError: second")
    assert before <= failure.at <= time.time()
    assert "Traceback" in caplog.text
    eventually(lambda: not len(threads))


def test_an_error_that_lasts_does_not_spin(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    stopped = threading.Event()

    def wait(pause: float) -> bool:
        pauses.append(pause)
        if len(pauses) == 100:
            threads.stop()
        return stopped.wait(0)

    monkeypatch.setattr(threads._stopped, "wait", wait)

    def step() -> bool:
        raise OSError("for ever")

    threads.serve("broken", step)
    assert threads.join(WAIT)
    assert pauses[0] == module.PAUSES.first
    assert pauses == sorted(pauses)
    assert pauses[10:] == [module.PAUSES.last] * 90
    assert [failure.count for failure in threads.failures] == [100]


def test_an_error_that_repeats_is_logged_ever_more_rarely(threads: Threads, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(100):
        threads.note("name", ValueError("the same"))
    assert len(caplog.records) == 7
    threads.note("name", ValueError("another"))
    assert len(caplog.records) == 8


def test_a_start_that_the_system_refuses_leaves_nothing(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert threads.start("worker", print) is None
        with pytest.raises(UsageError, match="'loop'"):
            threads.must_serve("loop", lambda: False)
    assert len(threads) == 0
    assert [(each.name, each.error) for each in threads.failures] == [
        ("worker", "RuntimeError: can't start new thread"),
        ("loop", "RuntimeError: can't start new thread"),
    ]
    done: SimpleQueue[int] = SimpleQueue()
    assert threads.start("worker", done.put, 7) is not None
    assert done.get(timeout=WAIT) == 7


def test_an_error_that_ends_a_thread_is_noted(threads: Threads, recwarn: pytest.WarningsRecorder) -> None:
    def work() -> None:
        raise SystemExit(3)

    threads.start("work", work)
    eventually(lambda: not len(threads))
    assert [(each.name, each.error) for each in threads.failures] == [("work", "SystemExit: 3")]
    assert not recwarn.list


def test_nothing_is_started_after_stop_and_loops_end_with_their_step(threads: Threads) -> None:
    entered, leave = threading.Event(), threading.Event()

    def step() -> bool:
        entered.set()
        return leave.wait(WAIT)

    threads.serve("loop", step)
    assert entered.wait(WAIT)
    threads.stop()
    threads.stop()
    assert threads.serve("late", step) is None
    assert not threads.failures
    assert not threads.join(0.0)
    leave.set()
    assert threads.join(WAIT)


def test_a_thread_that_joins_does_not_wait_for_itself(threads: Threads) -> None:
    ended: SimpleQueue[bool] = SimpleQueue()
    threads.start("joiner", lambda: ended.put(threads.join(WAIT)))
    assert ended.get(timeout=WAIT)


def test_the_names_that_are_remembered_are_bounded(threads: Threads) -> None:
    for number in range(module.MAX_FAILURES + 5):
        threads.note(f"name {number}", ValueError("x"))
    assert len(threads.failures) == module.MAX_FAILURES
    last = threads.failures[-1]
    assert last == Failure(f"name {module.MAX_FAILURES + 4}", 1, "ValueError: x", last.at)
