"""An event loop in a thread of its own, for those who call it from other threads and wait.

``start`` may fail, where the system refuses a thread, and leaves nothing then. ``call`` runs a coroutine there and
gives its result back; who is interrupted meanwhile is let go only when the coroutine has ended. ``stop`` ends the
thread. What breaks the loop itself off is heard by ``on_failure``, and the loop goes on: others wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

from engine.errors import UsageError

INTERRUPTED_SECONDS = 10.0
"""Between two words in the log about a call that was interrupted and has not ended."""

log = logging.getLogger(__name__)

T = TypeVar("T")


def _log(error: BaseException) -> None:
    log.error("an event loop was broken off, and goes on", exc_info=error)


class LoopThread:
    """One event loop and its thread. Thread-safe; nothing may be called from the loop's own thread but ``loop``."""

    def __init__(self, name: str, on_failure: Callable[[BaseException], None] = _log) -> None:
        """``name`` is the thread's. ``on_failure`` is called in it."""
        self.loop = asyncio.new_event_loop()
        self._on_failure = on_failure
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread. Raises ``UsageError`` where the system refuses it."""
        try:
            self._thread.start()
        except (RuntimeError, MemoryError):
            self._stopping.set()
            self.loop.close()
            detail = (
                f"cannot start the thread {self._thread.name!r}: check the limit of processes (ulimit -u, pids.max)"
            )
            raise UsageError(detail=detail) from None

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run ``work`` on the loop, and wait for it, ``timeout`` seconds at most.

        A timeout cancels it, and raises ``TimeoutError`` at once. KeyboardInterrupt cancels it, too, and is raised when
        it has ended: it may be writing to what the caller owns. Raises what ``work`` raises, and ``UsageError`` after
        ``stop``.
        """
        if self._stopping.is_set():
            work.close()
            raise UsageError(detail=f"{self._thread.name} has been stopped")
        over: Future[T] = Future()
        begun: list[asyncio.Task[T]] = []

        def begin() -> None:
            begun.append(self.loop.create_task(work))
            begun[0].add_done_callback(ended)

        def ended(task: asyncio.Task[T]) -> None:
            fault = CancelledError() if task.cancelled() else task.exception()
            if fault is not None:
                over.set_exception(fault)
            else:
                over.set_result(task.result())

        self.loop.call_soon_threadsafe(begin)
        try:
            return over.result(timeout)
        except BaseException as error:
            if over.done():
                raise
            self.loop.call_soon_threadsafe(lambda: [task.cancel() for task in begun])
            if isinstance(error, FutureTimeout):  # Python 3.10 has a class of its own for it
                raise TimeoutError(f"no result within {timeout:g} s") from None
            while not wait([over], INTERRUPTED_SECONDS).done and self.alive:
                log.warning("what was interrupted has not ended for %g s", INTERRUPTED_SECONDS)
            raise

    def stop(self, timeout: float) -> bool:
        """End the loop and its thread; whether it has ended within ``timeout`` seconds. Twice is harmless."""
        self._stopping.set()
        if self.alive:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(timeout)
        if self.alive:
            return False
        if not self.loop.is_closed():
            self.loop.close()
        return True

    def _run(self) -> None:
        """Keep the loop running until ``stop``.

        A callback that raises ``SystemExit``, as a caller's own may, breaks the loop off. Whoever waits for the call
        that it belongs to is told by that call's task; the others must not wait for ever.
        """
        while not self._stopping.is_set():
            try:
                self.loop.run_forever()
            except BaseException as error:  # noqa: BLE001 - it goes on
                self._on_failure(error)
