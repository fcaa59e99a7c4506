"""An event loop in a thread of its own, for those who call it from other threads and wait.

``start`` may fail, where the system refuses a thread, and leaves nothing then. ``call`` runs a coroutine there and
gives its result back; who is interrupted meanwhile is let go only when the coroutine has ended. ``end_calls`` ends
what others wait for, and ``stop`` the thread: nobody waits for a loop that is gone. What breaks the loop itself off is
heard by ``on_failure``, and the loop goes on: others wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import selectors
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import CancelledError, Future, InvalidStateError, wait
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

from engine import forks
from engine.errors import Closed, UsageError
from engine.net.daemon_pool import DaemonPool

INTERRUPTED_SECONDS = 10.0
"""Between two words in the log about a call that was interrupted and has not ended."""

LAST_SECONDS = 1.0
"""For the calls that are still under way when the loop ends to take notice."""

log = logging.getLogger(__name__)

T = TypeVar("T")


def _log(error: BaseException) -> None:
    log.error("an event loop was broken off, and goes on", exc_info=error)


class _Call:
    """A call under way: what its caller waits for, and the task that does it once it has begun."""

    def __init__(self) -> None:
        self.over: Future[Any] = Future()
        self.task: asyncio.Task[Any] | None = None
        self.cut_off = False

    def fail(self, fault: BaseException) -> None:
        """End the caller's wait, if nothing else has."""
        with contextlib.suppress(InvalidStateError):
            self.over.set_exception(fault)


class LoopThread:
    """One event loop and its thread. Thread-safe; nothing may be called from the loop's own thread but ``loop``."""

    def __init__(
        self, name: str, on_failure: Callable[[BaseException], None] = _log, *, what: str = "the event loop"
    ) -> None:
        """``name`` is the thread's, and ``what`` is what errors call its owner. ``on_failure`` is called in it."""
        self.what = what
        self._origin = forks.Origin(what)
        self._selector = selectors.DefaultSelector()
        self.loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop(self._selector)
        self.loop.set_default_executor(DaemonPool(f"{name}-worker"))
        self._on_failure = on_failure
        self._stopping = threading.Event()
        self._ending = False  # it runs for the last calls alone
        self._calls: set[_Call] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        forks.ask_at_fork(self)

    def inherited(self) -> Iterable[int]:
        """See ``forks.Inherited``. In a child, the loop and its tasks are left as they are for ever."""
        forks.never_end(self)
        for task in asyncio.all_tasks(self.loop):
            forks.never_end(task)
        wakes = getattr(self.loop, "_csock", None)  # the end of its own pipe that it does not watch
        return [key.fd for key in (self._selector.get_map() or {}).values()] + ([wakes.fileno()] if wakes else [])

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def within(self) -> bool:
        """Whether the caller is in the loop's own thread, where nothing can wait for it."""
        return threading.current_thread() is self._thread

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
        it has ended: it may be writing to what the caller owns. Raises what ``work`` raises, ``Closed`` after ``stop``
        and where ``end_calls`` or ``stop`` ended it, ``ForkedProcess``, and ``UsageError`` in the loop's own thread.
        """
        call = _Call()
        try:
            self._begin(call, work)
        except BaseException:
            self._calls.discard(call)
            work.close()
            raise
        try:
            result: T = self._result(call, timeout)
            return result
        finally:
            self._calls.discard(call)

    def _begin(self, call: _Call, work: Coroutine[Any, Any, Any]) -> None:
        self._origin.check()
        if self.within:
            detail = (
                f"{self.what} cannot be called from its own thread, which a callback runs in: "
                "the call would wait for itself; make it from another thread"
            )
            raise UsageError(detail=detail)

        def begin() -> None:
            if call.over.done():  # its caller was let go before
                work.close()
                return
            call.task = self.loop.create_task(work)
            call.task.add_done_callback(ended)
            if call.cut_off:
                call.task.cancel()

        def ended(task: asyncio.Task[Any]) -> None:
            fault = CancelledError() if task.cancelled() else task.exception()
            if fault is None:
                with contextlib.suppress(InvalidStateError):
                    call.over.set_result(task.result())
            elif call.cut_off and isinstance(fault, Exception):
                closed = Closed(what=self.what)
                closed.__cause__ = None if isinstance(fault, CancelledError) else fault
                call.fail(closed)
            else:
                call.fail(fault)

        self._calls.add(call)  # before the look: whoever stops the loop looks through them afterwards
        if self._stopping.is_set():
            raise Closed(what=self.what)
        try:
            self.loop.call_soon_threadsafe(begin)
        except RuntimeError:  # it was closed just now
            raise Closed(what=self.what) from None

    def _result(self, call: _Call, timeout: float | None) -> Any:
        try:
            return call.over.result(timeout)
        except BaseException as error:
            if call.over.done():
                raise
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(lambda: call.task and call.task.cancel())
            if isinstance(error, FutureTimeout):  # Python 3.10 has a class of its own for it
                raise TimeoutError(f"no result within {timeout:g} s") from None
            while not wait([call.over], INTERRUPTED_SECONDS).done and self.alive:
                log.warning("what was interrupted has not ended for %g s", INTERRUPTED_SECONDS)
            raise

    def end_calls(self, timeout: float) -> bool:
        """Cancel the calls under way, which then raise ``Closed``; whether they have ended within ``timeout`` seconds.

        In the loop's own thread it cannot wait, and does not.
        """
        calls = list(self._calls)

        def cut_off() -> None:
            for call in calls:
                call.cut_off = True
                if call.task is not None:
                    call.task.cancel()

        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(cut_off)
        return self.within or not wait([call.over for call in calls], timeout).not_done

    def stop(self, timeout: float) -> bool:
        """End the loop and its thread; whether it has ended within ``timeout`` seconds. Twice is harmless.

        A call that is still under way raises ``Closed``. In a forked child nothing is done.
        """
        if self._origin.elsewhere:
            return True
        self._stopping.set()
        if self.alive:
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._break_off)
            if not self.within:
                self._thread.join(timeout)
        for call in list(self._calls):
            call.fail(Closed(what=self.what))
        if self.alive:
            return False
        if not self.loop.is_closed():
            self.loop.close()
        return True

    def _break_off(self) -> None:
        """In the loop's thread; whoever stops it twice must not cut short what it does last."""
        if not self._ending:
            self.loop.stop()

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
        self._ending = True
        left = set()
        for call in list(self._calls):
            call.cut_off = True
            if call.task is not None and not call.task.done():
                call.task.cancel()
                left.add(call.task)
        if left:
            try:
                self.loop.run_until_complete(asyncio.wait(left, timeout=LAST_SECONDS))
            except BaseException as error:  # noqa: BLE001 - as above
                self._on_failure(error)
