"""Calls that are waited for so long and no longer, by threads that must go on: an engine's.

A call that comes too late goes on in its thread, and keeps what it uses until it returns. While one is out nobody waits
for another: whoever asks hears at once that there is no answer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from typing import TypeVar

from engine.net.daemon_pool import DaemonPool

MAX_CALLS = 8
"""Calls of one kind that are under way at once, late ones among them."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Patience:
    """One kind of calls. Thread-safe."""

    def __init__(self, what: str) -> None:
        """``what`` is what the log calls them."""
        self.what = what
        self.late = 0
        """Calls that came too late, or were not made since one was out."""
        self._pool = DaemonPool(what, MAX_CALLS)
        self._lock = threading.Lock()
        self._out = 0

    @property
    def waiting(self) -> bool:
        """Whether a late call has not returned yet."""
        return self._out > 0

    def call(self, work: Callable[[], T], seconds: float, after: Callable[[], object] = lambda: None) -> T | None:
        """What ``work`` returns, or None where that is not there in so many seconds. Raises what it raises in time.

        After None, and only then, ``after`` is called as soon as ``work`` is not at work.
        """
        if self._out:
            self.late += 1
            after()
            return None
        future = self._pool.submit(work)
        try:
            return future.result(seconds)
        except Late:
            if future.done():
                return future.result()
            self._leave(future, seconds)
            future.add_done_callback(lambda _: after())
            return None

    def close(self) -> None:
        """Make no further calls."""
        self._pool.shutdown()

    def _leave(self, future: Future[T], seconds: float) -> None:
        with self._lock:
            self._out += 1
            self.late += 1
        log.warning("%s: no answer from the store in %g s; going on without it", self.what, seconds)
        future.add_done_callback(self._returned)

    def _returned(self, future: Future[T]) -> None:
        with self._lock:
            self._out -= 1
        if not future.cancelled() and (error := future.exception()) is not None:
            log.warning("%s: what came too late failed, too: %s", self.what, error)
