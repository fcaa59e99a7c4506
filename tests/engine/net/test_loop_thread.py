"""A loop in a thread: calls and their results, timeouts, interruptions, what breaks it off, its start and its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from engine.errors import UsageError
from engine.net.loop_thread import LoopThread

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


def test_a_timeout_cancels_the_call(thread: LoopThread) -> None:
    cancelled = threading.Event()

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError):
        thread.call(hangs(), 0.05)
    assert cancelled.wait(WAIT)


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
    with pytest.raises(UsageError, match="has been stopped"):
        made.call(answer(1))
    assert made.stop(WAIT), "twice is harmless"
