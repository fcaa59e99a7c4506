"""Threads that somebody owns: a loop goes on after an error, and what went wrong can be read afterwards.

A thread that meets an error which nobody foresaw would end without a word, and what it served with it. A loop of
``Threads.serve`` logs the error, counts it and goes on, more slowly while it lasts. A start that the system refuses, as
it does at a limit of processes, leaves nothing behind that ``join`` could trip over.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from engine.errors import UsageError
from engine.net.backoff import Backoff
from engine.net.last_use import LastUse

PAUSES = Backoff(0.05, 1.0)
"""Seconds that a loop waits after errors in a row: one that lasts costs an attempt a second."""

MAX_FAILURES = 64
"""Names of which failures are remembered; one more makes the name that failed longest ago go."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong under one name: how often, the last error, and when that was, in seconds since the epoch."""

    name: str
    count: int
    error: str
    at: float


class Threads:
    """The threads of one owner, and what failed in them. Thread-safe.

    Names say what a thread is for, and are shared by those that do the same; each thread's own name has a number, too.
    All are daemons: the owner ends them with ``stop``, whatever wakes them, and ``join``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alive: set[threading.Thread] = set()
        self._failures: dict[str, Failure] = {}
        self._stopped = threading.Event()
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._alive)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What failed so far, one for each name, the latest last."""
        with self._lock:
            return tuple(self._failures.values())

    def start(self, name: str, work: Callable[..., object], *args: object) -> threading.Thread | None:
        """Run ``work(*args)`` in a new thread; an error of its own that it raises is noted.

        None after ``stop``, and where the system refuses a thread: that is noted, too, and nothing is left of it.
        """
        thread = threading.Thread(
            target=self._run, args=(name, work, args), name=f"{name}:{next(self._numbers)}", daemon=True
        )
        with self._lock:
            if self._stopped.is_set():
                return None
            try:
                thread.start()
            except (RuntimeError, MemoryError) as error:
                refused = error
            else:
                self._alive.add(thread)
                return thread
        self.note(name, refused)
        return None

    def serve(self, name: str, step: Callable[[], bool], use: LastUse | None = None) -> threading.Thread | None:
        """Call ``step`` in a new thread until it says False, or ``stop`` was called; None as ``start``.

        An error that it raises is noted, and after a pause it is called again. ``use`` is what the thread uses, and
        lets go of when it ends.
        """
        if use is not None:
            use.take()
        thread = self.start(name, self._loop, name, step, use)
        if thread is None and use is not None:
            use.let_go()
        return thread

    def must_serve(self, name: str, step: Callable[[], bool], use: LastUse | None = None) -> threading.Thread:
        """As ``serve``. Raises ``UsageError`` where the system refuses a thread."""
        thread = self.serve(name, step, use)
        if thread is None:
            detail = f"cannot start the thread {name!r}: check the limit of processes (ulimit -u, pids.max)"
            raise UsageError(detail=detail)
        return thread

    def note(self, name: str, error: BaseException) -> None:
        """Count and log an error that was not foreseen. An error that repeats is logged ever more rarely."""
        text = f"{type(error).__name__}: {error}"
        with self._lock:
            before = self._failures.pop(name, None)
            count = before.count + 1 if before is not None else 1
            self._failures[name] = Failure(name, count, text, time.time())
            while len(self._failures) > MAX_FAILURES:
                del self._failures[next(iter(self._failures))]
        if before is None or before.error != text or not count & (count - 1):
            log.error("%s failed, %d times so far: %s", name, count, text, exc_info=error)

    def stop(self) -> None:
        """Begin no further thread and no further step; twice is harmless. Who waits in a step must be woken besides."""
        with self._lock:
            self._stopped.set()

    def join(self, timeout: float | None) -> bool:
        """Wait ``timeout`` seconds in all (None: for ever) until the threads have ended; whether they have."""
        until = None if timeout is None else time.monotonic() + timeout
        me = threading.current_thread()
        with self._lock:
            threads = [thread for thread in self._alive if thread is not me]
        for thread in threads:
            thread.join(None if until is None else max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _run(self, name: str, work: Callable[..., object], args: tuple[object, ...]) -> None:
        try:
            work(*args)
        except BaseException as error:  # noqa: BLE001 - it is noted, and it ends with the thread
            self.note(name, error)
        finally:
            with self._lock:
                self._alive.discard(threading.current_thread())

    def _loop(self, name: str, step: Callable[[], bool], use: LastUse | None) -> None:
        failed = 0
        try:
            while not self._stopped.is_set():
                try:
                    if not step():
                        return
                    failed = 0
                except Exception as error:  # noqa: BLE001 - it is noted
                    failed += 1
                    self.note(name, error)
                    self._stopped.wait(PAUSES.after(failed))
        finally:
            if use is not None:
                use.let_go()
