"""How many requests are under way at a time, and who waits for a turn: a bounded queue. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum

MAX_RUNNING = 4096
"""Requests under way at a time, unless the options say otherwise."""

MAX_WAITING = 1024
"""Requests that wait for a turn, likewise."""

WAIT_SECONDS = 30.0
"""How long one of them does, likewise."""

LEAST_RETRY_SECONDS = 1.0
MOST_RETRY_SECONDS = 60.0
"""What a refused client is told to wait."""

NEWEST_COUNTS = 0.1
"""What the newest pause between two ends counts in their average."""


class Turn(Enum):
    """What becomes of a request that comes."""

    RUNS = "runs"
    WAITS = "waits"
    REFUSED = "refused"


@dataclass
class Turns:
    """Who runs, and who waits."""

    running_limit: int = MAX_RUNNING
    waiting_limit: int = MAX_WAITING
    wait_seconds: float = WAIT_SECONDS

    def __post_init__(self) -> None:
        if self.running_limit < 1 or self.waiting_limit < 0 or not self.wait_seconds > 0:
            raise ValueError("at least one request runs, and none waits for less than no time")
        self.running = 0
        self._waiting: OrderedDict[Hashable, float] = OrderedDict()
        self._pause = LEAST_RETRY_SECONDS / 10
        self._last_end: float | None = None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def come(self, who: Hashable, now: float) -> Turn:
        """A request comes."""
        if self.running < self.running_limit and not self._waiting:
            self.running += 1
            return Turn.RUNS
        if len(self._waiting) >= self.waiting_limit:
            return Turn.REFUSED
        self._waiting[who] = now
        return Turn.WAITS

    def end(self, now: float) -> Hashable | None:
        """One that ran is over: who has its turn now, if anybody waits."""
        if self._last_end is not None:
            self._pause += NEWEST_COUNTS * (now - self._last_end - self._pause)
        self._last_end = now
        self.running -= 1
        if not self._waiting or self.running >= self.running_limit:
            return None
        who, _ = self._waiting.popitem(last=False)
        self.running += 1
        return who

    def leave(self, who: Hashable) -> None:
        """One that waited waits no more."""
        self._waiting.pop(who, None)

    def late(self, now: float) -> list[Hashable]:
        """Those who have waited for too long, and wait no more."""
        found = []
        while self._waiting:
            who, since = next(iter(self._waiting.items()))
            if now - since < self.wait_seconds:
                break
            del self._waiting[who]
            found.append(who)
        return found

    def retry_after(self) -> float:
        """Seconds after which one more may have a turn: as long as those who wait now will take to get theirs."""
        expected = self._pause * (len(self._waiting) + 1)
        return min(MOST_RETRY_SECONDS, max(LEAST_RETRY_SECONDS, expected))
