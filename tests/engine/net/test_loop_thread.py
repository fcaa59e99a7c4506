"""A loop in a thread: calls and their results, timeouts, interruptions, what breaks it off, its start and its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout

import pytest

from engine.errors import Closed, ForkedProcess, UsageError
from engine.net import loop_thread
from engine.net.loop_thread import LoopThread
from tests.forking import in_child

WAIT = 60.0


@pytest.fixture
def failures() -> list[BaseException]:
    return []


@pytest.fixture
def thread(failures: list[BaseException]) -> Iterator[LoopThread]:
    made = LoopThread("test", failures.append)
    made.start()
    yield made
    assert made.stop(WAIT)


async def answer(value: int) -> int:
    await asyncio.sleep(0)
    return value


def test_calls_give_their_results_back_in_any_thread(thread: LoopThread) -> None:
    found: list[int] = []
    callers = [threading.Thread(target=lambda n=n: found.append(thread.call(answer(n)))) for n in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(WAIT)
    assert sorted(found) == list(range(8))


def test_what_a_call_raises_is_raised(thread: LoopThread) -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        thread.call(fails())

    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    with pytest.raises(CancelledError):
        thread.call(cancels_itself())
    assert thread.call(answer(1)) == 1


def test_a_timeout_cancels_the_call(thread: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled = threading.Event()
    begun = threading.Event()

    async def hangs() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def over(self: object, timeout: float | None = None) -> None:
        assert begun.wait(WAIT), "the time is over when it has begun, however slow the day"
        raise FutureTimeout

    monkeypatch.setattr("concurrent.futures.Future.result", over)
    with pytest.raises(TimeoutError):
        thread.call(hangs(), 0.05)
    assert cancelled.wait(WAIT)


def test_a_timeout_cancels_a_call_that_has_not_begun(thread: LoopThread) -> None:
    """The loop is busy; who has no time never hears of it."""
    done: list[int] = []
    busy, free = threading.Event(), threading.Event()

    async def never() -> None:
        done.append(1)

    thread.loop.call_soon_threadsafe(lambda: (busy.set(), free.wait(WAIT)))
    assert busy.wait(WAIT)
    with pytest.raises(TimeoutError):
        thread.call(never(), 0.01)
    free.set()
    assert thread.call(asyncio.sleep(0, 1)) == 1
    assert done == []


def test_an_interruption_is_raised_when_the_call_has_ended(thread: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    begun = threading.Event()

    async def slow_to_end() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            ended.set()

    def interrupted(self: object, timeout: float | None = None) -> None:
        assert begun.wait(WAIT)
        raise KeyboardInterrupt

    monkeypatch.setattr("concurrent.futures.Future.result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        thread.call(slow_to_end())
    assert ended.is_set()


def test_what_breaks_the_loop_off_is_heard_and_others_are_served(
    thread: LoopThread, failures: list[BaseException]
) -> None:
    def exits() -> None:
        raise SystemExit(3)

    thread.loop.call_soon_threadsafe(exits)
    assert thread.call(answer(2)) == 2
    assert [type(error) for error in failures] == [SystemExit]


def test_a_thread_that_the_system_refuses_is_said_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    made = LoopThread("test")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(UsageError, match="ulimit -u"):
            made.start()
    assert made.loop.is_closed()
    assert made.stop(WAIT)


def test_nothing_is_called_after_the_end() -> None:
    made = LoopThread("test")
    made.start()
    assert made.stop(WAIT)
    assert not made.alive
    with pytest.raises(Closed, match="was closed"):
        made.call(answer(1))
    assert made.stop(WAIT), "twice is harmless"


def test_an_end_that_is_asked_for_twice_lets_the_last_calls_end(
    failures: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_thread, "LAST_SECONDS", WAIT)
    thread, begun, ended = LoopThread("test", failures.append), threading.Event(), threading.Event()
    asked = threading.Event()
    thread.start()

    async def slow_to_end() -> None:
        begun.set()
        try:
            await wait_for_ever()
        finally:
            while not asked.is_set():  # noqa: ASYNC110 - another thread sets it
                await asyncio.sleep(0.01)
            await asyncio.sleep(0)
            ended.set()

    def call() -> None:
        with pytest.raises(Closed):
            thread.call(slow_to_end())

    waiting = threading.Thread(target=call)
    waiting.start()
    assert begun.wait(WAIT)
    assert not thread.stop(0.05)
    thread.stop(0.05)
    asked.set()
    assert thread.stop(WAIT)
    waiting.join(WAIT)
    assert ended.is_set()
    assert failures == []


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


def caller(thread: LoopThread, found: list[BaseException]) -> threading.Thread:
    def call() -> None:
        try:
            thread.call(wait_for_ever())
        except BaseException as error:
            found.append(error)

    made = threading.Thread(target=call)
    made.start()
    while not thread._calls:
        pass
    return made


def test_calls_under_way_can_be_ended_and_say_what_was_closed() -> None:
    thread, found = LoopThread("test", what="this thing"), list[BaseException]()
    thread.start()
    waiting = caller(thread, found)
    assert thread.end_calls(WAIT)
    waiting.join(WAIT)
    assert [str(error) for error in found] == ["this thing was closed"]
    assert isinstance(found[0], Closed)
    assert thread.call(answer(3)) == 3, "others begin as before"
    assert thread.stop(WAIT)


def test_nobody_waits_for_a_loop_that_was_stopped() -> None:
    thread, found = LoopThread("test"), list[BaseException]()
    thread.start()
    waiting = caller(thread, found)
    assert thread.stop(WAIT)
    waiting.join(WAIT)
    assert [type(error) for error in found] == [Closed]


def test_nobody_waits_for_a_loop_that_hangs() -> None:
    thread, found, go_on = LoopThread("test"), list[BaseException](), threading.Event()
    thread.start()
    waiting = caller(thread, found)
    thread.loop.call_soon_threadsafe(go_on.wait, WAIT)
    assert not thread.end_calls(0.05)
    assert not thread.stop(0.05)
    waiting.join(WAIT)
    assert [type(error) for error in found] == [Closed]
    go_on.set()
    assert thread.stop(WAIT)


def test_a_call_from_the_loops_own_thread_would_wait_for_itself(thread: LoopThread) -> None:
    async def calls() -> int:
        return thread.call(answer(1))

    with pytest.raises(UsageError, match="cannot be called from its own thread"):
        thread.call(calls())
    assert thread.call(answer(1)) == 1


def test_an_end_from_the_loops_own_thread_waits_for_nothing(thread: LoopThread) -> None:
    async def ends() -> None:
        assert thread.end_calls(WAIT)
        await wait_for_ever()

    with pytest.raises(Closed):
        thread.call(ends())
    assert thread.call(answer(1)) == 1


def test_blocking_work_of_the_loop_keeps_no_program_from_ending(thread: LoopThread) -> None:
    async def works() -> threading.Thread:
        return await asyncio.to_thread(threading.current_thread)

    assert thread.call(works()).daemon


def test_a_forked_child_leaves_the_loop_alone(thread: LoopThread) -> None:
    with pytest.raises(ForkedProcess):
        in_child(lambda: thread.call(answer(1)))
    assert in_child(lambda: thread.stop(WAIT))
    assert thread.call(answer(1)) == 1
