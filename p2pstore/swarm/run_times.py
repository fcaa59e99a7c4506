"""How long runs take: when one is too slow, and how many bytes the next is to have. Pure.

What comes from another zone takes times of its own: the link between zones may make all of it slow.
"""

from __future__ import annotations

from engine.patience import Patience
from p2pstore.swarm.rarity import RUN_BYTES

LONG_RUN_BYTES = 16 << 20
QUICK_RUN_SECONDS = 0.05
SLOW_RUN_SECONDS = 0.2
"""While there are no getters, runs double after one that was quick, up to the first, and halve after a slow one.

A run's time counts from its request, so those before it in its peer's window count, too.
"""

PATIENCE = 8.0
"""A run is slow when it takes so many times longer than runs take on average."""

LAST_PATIENCE = 3.0
"""The same, when all that is missing is in flight."""

MIN_PATIENCE = 2.0
"""Seconds before which no run is called slow."""

MIN_LAST_PATIENCE = 0.5
"""The same, when all that is missing is in flight: what slow receivers still send then is all that is waited for."""


class RunTimes:
    """What the runs of one pull have taught. Times are in seconds."""

    def __init__(self) -> None:
        self._near = Patience(MIN_PATIENCE)
        self._abroad = Patience(MIN_PATIENCE)
        self.run_bytes = RUN_BYTES
        """How long a run is to be while there are no getters."""

    def took(self, seconds: float, *, abroad: bool) -> None:
        """A run arrived so long after it was asked for."""
        (self._abroad if abroad else self._near).took(seconds)
        if seconds < QUICK_RUN_SECONDS:
            self.run_bytes = min(2 * self.run_bytes, LONG_RUN_BYTES)
        elif seconds > SLOW_RUN_SECONDS:
            self.run_bytes = max(self.run_bytes // 2, RUN_BYTES)

    def limits(self, *, last: bool) -> tuple[float, float]:
        """After how long a run is slow: from a peer that is near, and from one abroad.

        ``last`` says that all that is missing is in flight.
        """
        factor, floor = (LAST_PATIENCE, MIN_LAST_PATIENCE) if last else (PATIENCE, MIN_PATIENCE)
        return self._near.limit(factor, floor=floor), self._abroad.limit(factor, floor=floor)
