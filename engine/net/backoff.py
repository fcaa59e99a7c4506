"""How long to wait before another attempt. Pure but for the jitter, whose source can be given.

Whoever tries again counts the failures and does the waiting, on a thread, on an event loop or by a clock of its own::

    RETRIES = Backoff(0.1, 2.0, jitter=EVENLY)
    ...
    await asyncio.sleep(RETRIES.after(failures))
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

EVENLY = (0.5, 1.5)
"""Jitter around the pause: on average it is as long as without."""

SOONER = (0.5, 1.0)
"""Jitter below the pause: it is never longer than without."""

_MAX_DOUBLINGS = 64
"""More than any pause in seconds has: a power beyond a float's range would be an error."""


@dataclass(frozen=True)
class Backoff:
    """Pauses in seconds: ``first`` after a first failure, twice as long after each further one, ``last`` at most.

    ``jitter`` is the lowest and the highest factor that a pause is multiplied by, so that those who failed together do
    not come back together. ``uniform`` draws a factor between two: ``random.uniform``, unless a test says otherwise.
    """

    first: float
    last: float
    jitter: tuple[float, float] = (1.0, 1.0)
    uniform: Callable[[float, float], float] = field(default=random.uniform, repr=False, compare=False)

    def after(self, failures: int) -> float:
        """The pause after so many failures in a row; none after none."""
        if failures < 1:
            return 0.0
        pause = min(self.last, self.first * 2.0 ** min(failures - 1, _MAX_DOUBLINGS))
        low, high = self.jitter
        return pause if low == high == 1.0 else pause * self.uniform(low, high)
