"""The time below which nobody can bring an object from one node to many."""

from __future__ import annotations

import math


def bound(size: int, rate: float, receivers: int, chunks: int) -> float:
    """Seconds: S/B·(1 + log2(N)/k) for S bytes in k chunks to N receivers, with B bytes a second to and from each.

    No receiver takes S bytes in less than S/B. The last of the k chunks leaves the source no sooner than that; how many
    have it doubles at best in the time that one chunk takes, S/(B·k). See Mundinger, Weber and Weiss, "Optimal
    scheduling of peer-to-peer file dissemination" (2008), whose bound for equal links this is, rounded.
    """
    return size / rate * (1 + math.log2(max(1, receivers)) / max(1, chunks))


def percentile(values: list[float], part: float) -> float:
    """The value that ``part`` (0 to 1) of the values do not exceed; nearest rank. ``values`` must not be empty."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]
