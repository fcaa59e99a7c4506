"""A limit on bytes a second: a token bucket. The bucket is pure; ``RateLimit`` is one that threads share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BURST_SECONDS = 0.05
"""What may be sent at once after a pause: so much time's worth."""

MAX_SLEEP_SECONDS = 0.1
"""Who waits looks this often whether the limit was changed, or the reason to wait is gone."""

MIN_PIECE = 16 * 1024
"""Bytes that are always let through in one piece, however low the limit."""


class Bucket:
    """Tokens are bytes; they come at ``rate`` a second, and ``BURST_SECONDS`` of them are kept."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._tokens = 0.0
        self._at = 0.0

    def spend(self, count: int, now: float) -> float:
        """Take ``count`` tokens, on credit if need be; the seconds until the debt is paid."""
        self._tokens = min(self.rate * BURST_SECONDS, self._tokens + (now - self._at) * self.rate)
        self._at = now
        self._tokens -= count
        return max(0.0, -self._tokens / self.rate)


def never() -> bool:
    """Whether to stop waiting: no."""
    return False


class RateLimit:
    """Bytes a second that several threads may move together; 0 is no limit. It may be changed at any time."""

    def __init__(
        self,
        rate: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``rate`` is in bytes a second, ``clock`` tells seconds and never goes back."""
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._rate = 0
        self._bucket: Bucket | None = None
        self.set(rate)

    @property
    def rate(self) -> int:
        """Bytes a second; 0 is no limit."""
        return self._rate

    def set(self, rate: int) -> None:
        """Change the limit. Who waits for the old one goes on within ``MAX_SLEEP_SECONDS``."""
        with self._lock:
            self._rate = rate
            self._bucket = Bucket(rate) if rate else None

    def piece(self, length: int) -> int:
        """How much of ``length`` should be moved before the next ``spend``: a burst's worth."""
        rate = self._rate
        return min(length, max(MIN_PIECE, int(rate * BURST_SECONDS))) if rate else length

    def spend(self, count: int, over: Callable[[], bool] = never) -> None:
        """``count`` bytes were moved: sleep as long as the limit asks, behind all who spent before.

        That may be long, so it ends within ``MAX_SLEEP_SECONDS`` of ``over`` being true: nothing more is to be moved.
        """
        if not self._rate:
            return
        with self._lock:
            bucket = self._bucket
            if bucket is None:
                return
            now = self._clock()
            until = now + bucket.spend(count, now)
        while now < until and self._bucket is bucket and not over():
            self._sleep(min(until - now, MAX_SLEEP_SECONDS))
            now = self._clock()
