"""Messages for one thread from any others; some of them are worth waking it for.

Waking a thread is most of what a message costs (on a virtual machine another processor has to be called), so that
several messages are one bell, and what may wait for the next one rings none. To what takes little whoever brings it
sees by himself, in a ``turn``, unless somebody else has that or the thread was woken anyhow.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

M = TypeVar("M")


class Mailbox(Generic[M]):
    """A queue that is emptied by whoever has the ``turn``: one thread, and others for what takes little.

    ``put``, ``leave`` and ``bring`` may be called by any thread, and do not wait for another.
    """

    def __init__(self) -> None:
        self._messages: deque[M] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._rung = False
        self.turn = threading.Lock()
        """Held by who takes messages, so that they are taken one after the other."""

    def __len__(self) -> int:
        """Messages that were not taken."""
        return len(self._messages)

    def put(self, message: M) -> None:
        """Add a message, and wake who waits."""
        self._messages.append(message)
        self._ring()

    def _ring(self) -> None:
        if not self._rung:  # else the bell has not been heard, or what was added before it is not taken yet
            self._rung = True
            self._bell.put(None)

    def leave(self, message: M) -> None:
        """Add a message that is soon enough when the thread wakes for another, or for the time."""
        self._messages.append(message)

    def bring(self, message: M, work: Callable[[], None]) -> None:
        """Add a message that takes little, and ``work`` off what there is, if nobody else does or is about to.

        ``work`` is called in a turn, and takes messages; what it leaves the thread is woken for.
        """
        self._messages.append(message)
        if self._rung or not self.turn.acquire(blocking=False):
            return  # who has the turn looks once more when it is over
        try:
            work()
        finally:
            self.turn.release()
            if self._messages:
                self._ring()

    def wait(self, timeout: float) -> None:
        """Return at a bell, or when something is there already, or after ``timeout`` seconds."""
        if self._messages:
            return
        try:
            self._bell.get(timeout=max(0.0, timeout))
        except Empty:
            return
        self._rung = False  # before anything is taken: whoever adds something from now on rings again

    def take(self) -> M | None:
        """The message that came first; None where there is none."""
        return self._messages.popleft() if self._messages else None
