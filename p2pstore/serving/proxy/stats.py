"""What a proxy counts. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from p2pstore.metrics.histogram import Histogram


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
