"""Messages for one thread from any others; some of them are worth waking it for.

Waking a thread is most of what a message costs (on a virtual machine another processor has to be called), so that
several messages are one bell, and what may wait for the next one rings none.
"""

from __future__ import annotations

from collections import deque
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

M = TypeVar("M")


class Mailbox(Generic[M]):
    """A queue that one thread empties. ``put`` and ``leave`` may be called by any thread, and do not block."""

    def __init__(self) -> None:
        self._messages: deque[M] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._rung = False

    def __len__(self) -> int:
        """Messages that were not taken."""
        return len(self._messages)

    def put(self, message: M) -> None:
        """Add a message, and wake who waits."""
        self._messages.append(message)
        if not self._rung:  # else the bell has not been heard, or what was added before it is not taken yet
            self._rung = True
            self._bell.put(None)

    def leave(self, message: M) -> None:
        """Add a message that is soon enough when the thread wakes for another, or for the time."""
        self._messages.append(message)

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
