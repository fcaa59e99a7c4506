"""What an owner and its threads use together, and the last of them to end gives back."""

from __future__ import annotations

import threading
from collections.abc import Callable


class LastUse:
    """Whoever made it uses it from the start. Thread-safe.

    So nobody closes a descriptor that another thread still waits for, and none stays open because that thread ended
    later than its owner could wait.
    """

    def __init__(self, give_back: Callable[[], object]) -> None:
        """``give_back`` is called once, by who lets go last."""
        self._give_back = give_back
        self._lock = threading.Lock()
        self._users = 1

    def take(self) -> None:
        """Somebody else uses it, too."""
        with self._lock:
            self._users += 1

    def let_go(self) -> None:
        """Somebody uses it no more."""
        with self._lock:
            self._users -= 1
            last = not self._users
        if last:
            self._give_back()
