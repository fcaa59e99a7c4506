"""What a proxy counts. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

SECONDS_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Of the histograms, in seconds."""


@dataclass
class Histogram:
    """Seconds, by bounds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS_BOUNDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(SECONDS_BOUNDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus has them: each bound, and how many are not over it."""
        found, below = [], 0
        for bound, count in zip((*map(str, SECONDS_BOUNDS), "+Inf"), self.counts, strict=True):
            below += count
            found.append((bound, float(below)))
        return found


@dataclass
class Stats:
    """Counters since the start."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By path and status; 499 for clients that left."""
    retries: Counter[str] = field(default_factory=Counter)
    """Requests that were begun anew, by the type of the instance that failed them."""
    lost: int = 0
    """Requests that ended with an error because instances failed them."""
    refused: Counter[str] = field(default_factory=Counter)
    """Requests that were refused, by reason."""
    copies: int = 0
    """Hot prefixes that were copied to one more instance."""
    left: int = 0
    """Clients that left before their answer's end."""
    tokens: int = 0
    """Events with output that were passed on."""
    first: Histogram = field(default_factory=Histogram)
    """Seconds until the first token."""
    whole: Histogram = field(default_factory=Histogram)
    """Seconds of whole requests."""
    prefill: Histogram = field(default_factory=Histogram)
    """Seconds of prefills."""
