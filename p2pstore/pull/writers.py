"""Who is writing to a destination, so that it can be ended at any time and let go of by whoever leaves last."""

from __future__ import annotations

import threading
from collections.abc import Callable

from p2pstore.errors import Interrupted


class Writers:
    """Counts those who may write. Thread-safe.

    Once ``stop`` or ``end`` was called, nobody comes in any more. After ``end`` the last one out, or ``end`` itself
    where nobody is in, calls ``let_go``: so a write that takes for ever keeps what it writes to, and nothing else.
    """

    def __init__(self, let_go: Callable[[], None]) -> None:
        """``let_go`` is called once, by whichever thread was the last."""
        self._let_go = let_go
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._inside = 0
        self._stopped = False
        self._ended = False
        self._letting_go = False
        self._over = False

    def check(self) -> None:
        """Raise ``Interrupted`` once nobody is to write any more."""
        if self._stopped:
            raise Interrupted(detail="the destination was given up")

    def enter(self) -> None:
        """Begin to write. Raises ``Interrupted`` once nobody is to."""
        with self._lock:  # it is cheaper to take than the condition, and this is done for every run
            if self._stopped:
                self.check()
            self._inside += 1

    def leave(self) -> None:
        """Write no more."""
        with self._lock:
            self._inside -= 1
            if not self._stopped:
                return
            self._changed.notify_all()
            last = self._is_last()
        if last:
            self._finish()

    def stop(self, timeout: float) -> bool:
        """Let nobody in, and wait up to ``timeout`` seconds for those who are; whether all have left."""
        with self._changed:
            self._stopped = True
            return self._changed.wait_for(lambda: not self._inside, timeout)

    def end(self, timeout: float) -> bool:
        """As ``stop``, and let go of what they write to; whether that has been done."""
        with self._changed:
            self._stopped = self._ended = True
            last = self._is_last()
        if last:
            self._finish()
        with self._changed:
            return self._changed.wait_for(lambda: self._over, timeout)

    def _is_last(self) -> bool:
        """Whether the caller is to let go; true once. The lock is held."""
        if self._inside or not self._ended or self._letting_go:
            return False
        self._letting_go = True
        return True

    def _finish(self) -> None:
        try:
            self._let_go()
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()
