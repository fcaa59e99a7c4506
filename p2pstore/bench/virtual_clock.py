"""The virtual clock of a simulation: what is to happen, in the order of time."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

_Due = tuple[float, int, Callable[..., None], tuple[Any, ...]]


class VirtualClock:
    """Time in seconds, which passes between events only. What is due at one time happens in the order of asking.

    Most of what nodes do is to say something that is heard after the one delay that all of them have. Such events come
    due in the order in which they were asked for, so that a queue for each of a few ``delays`` takes the place of the
    heap, which costs several times as much.
    """

    def __init__(self, delays: Iterable[float] = ()) -> None:
        self.now = 0.0
        self.events = 0
        """Events that there were or will be."""
        self._stopped = False
        self._queue: list[_Due] = []
        self._lanes: dict[float, deque[_Due]] = {delay: deque() for delay in delays}
        self._queues = list(self._lanes.values())

    def at(self, time: float, act: Callable[..., None], *arguments: Any) -> None:
        """Call ``act`` at that time."""
        self.events += 1
        heapq.heappush(self._queue, (time, self.events, act, arguments))

    def after(self, delay: float, act: Callable[..., None], *arguments: Any) -> None:
        """Call ``act`` after so many seconds."""
        self.events += 1
        lane = self._lanes.get(delay)
        if lane is None:
            heapq.heappush(self._queue, (self.now + delay, self.events, act, arguments))
        else:
            lane.append((self.now + delay, self.events, act, arguments))

    def step(self, end: float = math.inf) -> bool:
        """Let the next event happen; False where there is none before ``end``, or one has called ``stop``."""
        first: deque[_Due] | None = None
        due = self._queue[0] if self._queue else None
        for lane in self._queues:
            if lane and (due is None or lane[0] < due):
                first, due = lane, lane[0]
        if due is None or due[0] > end or self._stopped:
            return False
        if first is None:
            heapq.heappop(self._queue)
        else:
            first.popleft()
        self.now = due[0]
        due[2](*due[3])
        return True

    def run(self, end: float) -> None:
        """Let one event after the other happen, until there is none before ``end``, or ``stop`` is called by one."""
        while self.step(end):
            pass

    def stop(self) -> None:
        """Let nothing more happen."""
        self._stopped = True
