"""The end of an object that has threads: begun once, and waited for by all who ask, wherever they stand.

Whoever closes may be another thread, a callback in one of the object's own threads, or a signal's handler that
interrupted the main thread while that held a lock. So the work is done in a thread of its own, and waited for only so
long: a handler gives up at last, and the lock that it stood on is released when it has returned.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable

from engine.errors import Closed
from engine.forks import Origin

EXIT_SECONDS = 5.0
"""For all objects together that are still open when the interpreter exits."""

log = logging.getLogger(__name__)

_open: weakref.WeakSet[Closing] = weakref.WeakSet()


class Closing:
    """The way in which one object ends. Nothing here waits for a lock that whoever was interrupted may hold."""

    def __init__(self, what: str, work: Callable[[], None]) -> None:
        """``work`` ends the object, within seconds; at the interpreter's exit, too. ``what`` is the object's name."""
        self._origin = Origin(what)
        self._work = work
        self._claim = threading.Lock()
        self._running = threading.Lock()
        self._running.acquire()
        self._thread = threading.Thread(target=self._do, name=f"closing of {what}", daemon=True)
        self._fault: BaseException | None = None
        _open.add(self)

    @property
    def what(self) -> str:
        """The object's name."""
        return self._origin.what

    @property
    def begun(self) -> bool:
        """Whether the object is to be used no more."""
        return self._claim.locked()

    def check(self) -> None:
        """Raise ``ForkedProcess`` in a child of the object's process, and ``Closed`` where its end has begun."""
        self._origin.check()
        if self._claim.locked():
            raise Closed(what=self._origin.what)

    def close(self, timeout: float, *, wait: bool = True) -> bool:
        """End the object, and ``wait`` up to ``timeout`` seconds; whether it has ended. In a forked child: nothing.

        Raises what the work raised.
        """
        if self._origin.elsewhere:
            return True
        if self._claim.acquire(blocking=False):
            try:
                self._thread.start()
            except (RuntimeError, MemoryError):  # none is to be had, as at the very end of the interpreter
                self._do()
        if not wait or threading.current_thread() is self._thread or not self._running.acquire(timeout=timeout):
            return False
        self._running.release()
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault
        return True

    def _do(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            self._fault = error
        finally:
            _open.discard(self)
            self._running.release()


@atexit.register
def close_all() -> None:
    """End whatever is open still, all at once."""
    left = list(_open)
    for closing in left:
        closing.close(0.0, wait=False)
    until = time.monotonic() + EXIT_SECONDS
    for closing in left:
        try:
            closing.close(max(0.0, until - time.monotonic()))
        except Exception:
            log.exception("%s could not be closed at the end of the program", closing.what)
