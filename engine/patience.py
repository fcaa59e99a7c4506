"""When something takes too long, by how long such things take. Pure: the caller has the clock."""

from __future__ import annotations

import math

AVERAGE_WEIGHT = 0.1
"""Of the newest in the moving average."""


class Patience:
    """A moving average of how long something takes, from which follows how long it may take.

    ``floor`` and ``first`` are in seconds: nothing is too slow before ``floor``, nor before ``first`` while nothing has
    been timed.
    """

    def __init__(self, floor: float, *, first: float = math.inf) -> None:
        self._floor = floor
        self._first = first
        self._average: float | None = None

    def took(self, seconds: float, *, most: float = math.inf) -> None:
        """One took so long. It counts as ``most`` times the average at most, so that one that hung teaches little."""
        if not self._average:
            self._average = seconds
        else:
            self._average += AVERAGE_WEIGHT * (min(seconds, most * self._average) - self._average)

    def limit(self, factor: float, *, floor: float | None = None) -> float:
        """The seconds after which one is too slow: so many times the average. ``floor`` stands in for the usual one."""
        least = self._floor if floor is None else floor
        return self._first if self._average is None else max(least, factor * self._average)
