"""An executor whose threads keep no program from ending, and which does with the threads that it can have."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from engine.errors import UsageError
from engine.net import daemon_pool
from engine.net.daemon_pool import DaemonPool

WAIT = 60.0


def test_work_is_done_and_its_errors_are_told() -> None:
    pool = DaemonPool("test")
    assert pool.submit(divmod, 7, 2).result(WAIT) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 7, 0).result(WAIT)
    assert list(pool.map(str, range(100), timeout=WAIT)) == [str(n) for n in range(100)]
    pool.shutdown()


def test_as_many_work_at_once_as_there_are_threads_and_the_rest_waits() -> None:
    pool = DaemonPool("test", 3)
    together, go_on = threading.Barrier(4), threading.Event()

    def work() -> str:
        together.wait(WAIT)
        go_on.wait(WAIT)
        return threading.current_thread().name

    begun = [pool.submit(work) for _ in range(3)]
    together.wait(WAIT)
    waits = pool.submit(threading.current_thread)
    assert not waits.done()
    go_on.set()
    assert len({each.result(WAIT) for each in begun}) == 3
    assert waits.result(WAIT).daemon
    pool.shutdown()


def test_a_thread_that_is_free_is_taken_before_another_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_pool, "IDLE_SECONDS", 3600.0)
    pool = DaemonPool("test")
    for _ in range(20):
        pool.submit(int).result(WAIT)
        while not pool._idle:
            pass
    assert pool._started == 1
    pool.shutdown()


def test_threads_without_work_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_pool, "IDLE_SECONDS", 0.01)
    pool = DaemonPool("test")
    first = pool.submit(threading.current_thread).result(WAIT)
    first.join(WAIT)
    assert not first.is_alive()
    assert pool.submit(threading.current_thread).result(WAIT) is not first


def test_what_was_cancelled_before_its_turn_is_not_done() -> None:
    pool = DaemonPool("test", 1)
    go_on, done = threading.Event(), threading.Event()
    pool.submit(go_on.wait, WAIT)
    waits = pool.submit(done.set)
    assert waits.cancel()
    go_on.set()
    pool.submit(int).result(WAIT)
    assert not done.is_set()
    pool.shutdown()


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    return lambda: monkeypatch.setattr(threading.Thread, "start", refuse)


def test_where_no_thread_is_to_be_had_it_is_said(refusing: Callable[[], None]) -> None:
    refusing()
    with pytest.raises(UsageError, match=r"cannot start a thread: .*ulimit -u"):
        DaemonPool("test").submit(int)


def test_where_no_other_thread_is_to_be_had_those_that_there_are_do_it(refusing: Callable[[], None]) -> None:
    pool = DaemonPool("test")
    go_on = threading.Event()
    pool.submit(go_on.wait, WAIT)
    refusing()
    waits = pool.submit(int)
    go_on.set()
    assert waits.result(WAIT) == 0
    pool.shutdown()


def test_a_loop_takes_it() -> None:
    async def work() -> str:
        asyncio.get_running_loop().set_default_executor(DaemonPool("test"))
        return (await asyncio.to_thread(threading.current_thread)).name

    assert asyncio.run(work()).startswith("test:")


def test_a_program_ends_though_work_goes_on() -> None:
    program = """
import threading
from engine.net.daemon_pool import DaemonPool
begun = threading.Event()
DaemonPool("test").submit(lambda: (begun.set(), threading.Event().wait()))
begun.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=WAIT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_is_taken_after_the_end() -> None:
    pool = DaemonPool("test")
    pool.submit(int).result(WAIT)
    pool.shutdown()
    with pytest.raises(RuntimeError):
        pool.submit(int)
