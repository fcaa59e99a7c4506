"""The virtual clock of a simulation: what is to happen, in the order of time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class VirtualClock:
    """Time in seconds, which passes between events only. What is due at one time happens in the order of asking."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        """Events that there were or will be."""
        self._stopped = False
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, time: float, act: Callable[..., None], *arguments: Any) -> None:
        """Call ``act`` at that time."""
        self.events += 1
        heapq.heappush(self._queue, (time, self.events, act, arguments))

    def run(self, end: float) -> None:
        """Let one event after the other happen, until there is none before ``end``, or ``stop`` is called by one."""
        queue, pop = self._queue, heapq.heappop
        while queue and not self._stopped:
            time, _, act, arguments = pop(queue)
            if time > end:
                break
            self.now = time
            act(*arguments)

    def stop(self) -> None:
        """Let nothing more happen."""
        self._stopped = True
