"""Threads for an event loop's blocking work that keep no process from ending.

Python waits at its exit for every thread of a ``ThreadPoolExecutor``, and lets none of them be used from then on: a
program that ends while something is being hashed would end much later, and could not leave the cluster as it should.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from engine.errors import UsageError

MAX_THREADS = min(32, (os.cpu_count() or 1) + 4)
"""As many as asyncio would take."""

IDLE_SECONDS = 10.0
"""Seconds after which a thread without work ends."""

T = TypeVar("T")


class DaemonPool(ThreadPoolExecutor):
    """An executor for one event loop, which takes nothing but a ``ThreadPoolExecutor``; nothing of that is used."""

    def __init__(self, name: str, threads: int = MAX_THREADS) -> None:
        """At most ``threads`` threads, called ``name`` and a number."""
        super().__init__(1)
        self._name = name
        self._most = threads
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._idle = 0
        self._alive = 0
        self._started = 0
        self._over = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """See ``Executor.submit``. Raises ``UsageError`` where there is no thread and the system refuses one."""
        future: Future[T] = Future()
        with self._changed:
            if self._over:
                raise RuntimeError("the pool was shut down")
            if self._idle > len(self._waiting):
                self._changed.notify()
            elif self._alive < self._most and not self._start() and not self._alive:
                detail = "cannot start a thread: check the limit of processes (ulimit -u, pids.max)"
                raise UsageError(detail=detail)
            self._waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001
        """Take nothing more. What has been taken is not waited for."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _start(self) -> bool:
        """One thread more; whether the system allows it. The lock is held."""
        thread = threading.Thread(target=self._work, name=f"{self._name}:{self._started + 1}", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            return False
        self._started += 1
        self._alive += 1
        return True

    def _work(self) -> None:
        while self._do_next():
            pass

    def _do_next(self) -> bool:
        """Wait for work and do it; false where this thread is to end. It keeps nothing of what it has done."""
        with self._changed:
            while not self._waiting:
                self._idle += 1
                called = self._changed.wait(IDLE_SECONDS) and not self._over
                self._idle -= 1
                if not called and not self._waiting:
                    self._alive -= 1
                    return False
            future, work = self._waiting.popleft()
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - whoever waits is told
                future.set_exception(error)
        return True
