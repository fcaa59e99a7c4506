"""The gets of one node: which run and which wait, how far each is, and how many there were. For one event loop."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from p2pstore.metrics.counts import Operation
from p2pstore.pull.run import Emit
from p2pstore.pull.turn import MAX_GETS, GetQueue

MAX_SHOWN = 100
"""Gets that are listed; more may wait."""

WAITING, PULLING = "waiting for its turn", "pulling"
"""Steps of a get beside those that it names itself."""


@dataclass
class RunningGet:
    """One get, as its events tell of it. ``done`` and ``total`` are in ``unit``, which is bytes where it is ``B``."""

    name: str
    dest: str
    began: float
    step: str = WAITING
    unit: str = ""
    done: int = 0
    total: int = 0
    peers: int = 0

    def hear(self, event: dict[str, Any]) -> None:
        """Take note of a ``progress`` event."""
        self.step = event.get("step", PULLING)
        self.unit = event.get("unit", "B")
        self.done, self.total, self.peers = event["done"], event["total"], event.get("peers", 0)

    def to_json(self, now: float) -> dict[str, Any]:
        """For the status; ``percent`` is of this step, and None where nobody knows how much it has to do."""
        return {
            "name": self.name,
            "dest": self.dest,
            "step": self.step,
            "unit": self.unit,
            "done": self.done,
            "total": self.total,
            "percent": round(min(100.0, 100 * self.done / self.total), 1) if self.total > 0 else None,
            "peers": self.peers,
            "seconds": round(now - self.began, 3),
        }


class Gets:
    """Gives each get its turn, counts it, and knows it while it is there."""

    def __init__(self, counted: Operation, most: int = MAX_GETS, clock: Callable[[], float] = time.monotonic) -> None:
        """``counted`` is told of each; ``most`` run at once; ``clock`` tells seconds and never goes back."""
        self._counted = counted
        self._queue = GetQueue(most)
        self._clock = clock
        self._there: dict[int, RunningGet] = {}

    @property
    def running(self) -> int:
        """Gets that have their turn."""
        return self._queue.running

    @property
    def waiting(self) -> int:
        """Gets that wait for theirs."""
        return self._queue.waiting

    def to_json(self) -> list[dict[str, Any]]:
        """The oldest ``MAX_SHOWN`` of those that run or wait, in the order of their coming."""
        now = self._clock()
        return [get.to_json(now) for get in list(self._there.values())[:MAX_SHOWN]]

    @asynccontextmanager
    async def one(self, name: str, dest: str, emit: Emit) -> AsyncIterator[Emit]:
        """Wait for a turn, and have it until the end of the block. The events of the get go where this says."""
        get = RunningGet(name, dest, self._clock())

        def hear(event: dict[str, Any]) -> None:
            if event["event"] == "progress":
                get.hear(event)
            emit(event)

        self._there[id(get)] = get
        try:
            with self._counted.one():
                async with self._queue.turn(_queued(name, emit)):
                    get.step = "beginning"
                    yield hear
        finally:
            del self._there[id(get)]


def _queued(name: str, emit: Emit) -> Callable[[int], None]:
    """Tells the user of a get's place among those that wait."""

    def tell(before: int) -> None:
        ahead = f"{before} before it" if before else "it is the next"
        emit({"event": "note", "text": f"the get of {name!r} waits for its turn, as this node has many: {ahead}"})

    return tell
