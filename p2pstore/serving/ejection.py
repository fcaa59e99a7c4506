"""Whether an instance is passed over for what its last requests met: passive health, as load balancers have it. Pure.

An instance can be well by its own word (``/health``) and fail all that it is asked. So one that fails
``EJECT_FAILURES`` requests in a row is ejected: others get what would come to it, for a while. Then it is asked again,
and the first answer decides: a failure ejects it for twice as long, and a request that it does well makes all
forgotten. Of each request one failure counts, so that no request ejects an instance alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.net.backoff import Backoff

EJECT_FAILURES = 5
"""Requests in a row."""

EJECTIONS = Backoff(5.0, 300.0)
"""Seconds of the first ejection, and of those that follow without a request done well. No jitter: equal events make
equal decisions."""


@dataclass(slots=True)
class Ejection:
    """Of one instance. Times in seconds."""

    failures: int = 0
    """In a row, and as if one were lacking once it was ejected: the next decides."""
    since: float = 0.0
    """When the first of them was."""
    times: int = 0
    """Ejections in a row."""
    begun: float = 0.0
    """When the ejection began."""
    until: float = 0.0
    """When it is asked again."""

    @property
    def counted(self) -> int:
        """Failures in a row, with the one that each further ejection took; those while it was ejected do not count."""
        return self.failures + self.times

    def failed(self, now: float) -> float | None:
        """A request failed there: for how long it is ejected now, None where it is not, or is already."""
        if now < self.until:
            return None  # it was there before, or nobody else was
        if not self.failures:
            self.since = now
        self.failures += 1
        if self.failures < EJECT_FAILURES:
            return None
        self.times += 1
        pause = EJECTIONS.after(self.times)
        self.begun, self.until = now, now + pause
        self.failures = EJECT_FAILURES - 1  # the next one decides
        return pause

    def served(self, came: float) -> bool:
        """It did well what came to it then. True where that ends an ejection.

        What it began before its first failure says nothing of how it is now.
        """
        if not self.failures or came < self.since:
            return False
        ended = self.until > came
        self.failures = self.times = 0
        self.begun = self.until = 0.0
        return ended
