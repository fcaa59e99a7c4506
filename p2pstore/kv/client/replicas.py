"""Which replica of a value is read first, and which endpoints are left for last. Pure: the clock is given.

An endpoint that failed is remembered as dead for a while: it is tried again only where no other has the value. So a
node that died costs one attempt, and not one a read until the master has noticed.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

DEAD_SECONDS = 10.0
"""For which an endpoint that failed is left for last: by then the master has missed its pings."""

MAX_DEAD = 1024
"""Endpoints that are remembered; with one more, the one that failed longest ago goes."""


MAX_ALIVE = 8
"""Endpoints that are remembered for having succeeded: to name one or two is enough where another has failed."""


class Failed(NamedTuple):
    """An endpoint that failed: since when (by the clock), how often in a row, and the last error in words."""

    since: float
    times: int
    detail: str


class DeadEndpoints:
    """Endpoints that failed, and have not succeeded since."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` is in seconds."""
        self._clock = clock
        self._failed: dict[str, tuple[float, Failed]] = {}
        self._alive: deque[str] = deque(maxlen=MAX_ALIVE)

    def __contains__(self, endpoint: str) -> bool:
        found = self._failed.get(endpoint)
        return found is not None and found[0] > self._clock()

    def failed(self, endpoint: str, detail: str) -> bool:
        """Note a failure; whether that is news: it did not count as dead any more, or not yet."""
        now = self._clock()
        before = self._failed.pop(endpoint, None)
        old = before[1] if before is not None else Failed(now, 0, "")
        self._failed[endpoint] = now + DEAD_SECONDS, Failed(old.since, old.times + 1, detail)
        while len(self._failed) > MAX_DEAD:
            self._failed.pop(next(iter(self._failed)), None)
        return before is None or before[0] <= now

    def succeeded(self, endpoint: str) -> None:
        """It is alive."""
        if self._failed:
            self._failed.pop(endpoint, None)
        if endpoint not in self._alive:
            self._alive.append(endpoint)

    def alive(self) -> list[str]:
        """Some that have succeeded, and not failed since, the latest first."""
        return [endpoint for endpoint in reversed(self._alive) if endpoint not in self._failed]

    def report(self) -> dict[str, Failed]:
        """All that failed and have not succeeded since, the latest last."""
        return {endpoint: failed for endpoint, (_, failed) in list(self._failed.items())}


def in_order(
    endpoints: Sequence[str],
    *,
    own: str,
    near: Callable[[str], bool],
    dead: DeadEndpoints,
    shuffle: Callable[[list[int]], None] = random.shuffle,
) -> list[int]:
    """The places in ``endpoints`` in the order in which to try them.

    Ours is first, then those whose memory is here (``near``), then others at random, so that not all readers of a value
    go to one; those that failed lately are last.
    """
    if len(endpoints) == 1:
        return [0]
    places = list(range(len(endpoints)))
    shuffle(places)

    def rank(place: int) -> int:
        endpoint = endpoints[place]
        if endpoint == own:
            return 0
        if endpoint in dead:
            return 3
        return 1 if near(endpoint) else 2

    return sorted(places, key=rank)
