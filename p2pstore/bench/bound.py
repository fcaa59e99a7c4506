"""How long one object to many takes at least, and how near a broadcast came to it. Sizes in bytes, times in seconds.

Three figures, the plainest first: the time over S/B, the time of a copy to one; ``hop_cost``, which does not depend on
how large a part a chunk is; and the part of a bound, which flatters whoever has few chunks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def bound(size: int, rate: float, receivers: int, chunks: int) -> float:
    """Seconds: S/B·(1 + log2(N)/k) for S bytes in k chunks to N receivers, with B bytes a second to and from each.

    No receiver takes S bytes in less than S/B. The last of the k chunks leaves the source no sooner than that; how many
    have it doubles at best in the time that one chunk takes, S/(B·k). See Mundinger, Weber and Weiss, "Optimal
    scheduling of peer-to-peer file dissemination" (2008), whose bound for equal links this is, rounded.
    """
    return size / rate * (1 + math.log2(max(1, receivers)) / max(1, chunks))


def bound_of_links(size: int, seed_rate: float, ups: Sequence[float], downs: Sequence[float]) -> float:
    """Seconds: max(S/u_seed, S/d_min, N·S/(u_seed + sum of u)), of receivers that send and take at these rates.

    The seed sends each byte once at least, the slowest takes all of them, and all together send N times the object. See
    Kumar and Ross, "Peer-assisted file distribution: the minimum distribution time" (2006): parts as small as one likes
    do not come below it.
    """
    return max(size / seed_rate, size / min(downs), len(downs) * size / (seed_rate + math.fsum(ups)))


def hop_cost(seconds: float, size: int, rate: float, receivers: int, chunks: int) -> float | None:
    """The c of T = S/B·(1 + c·log2(N)/k): what each doubling of the receivers costs, in chunk times.

    1 is the bound. It says how good the choice of chunks is, whatever their number. None for one receiver.
    """
    if receivers < 2:
        return None
    return (seconds * rate / size - 1) * chunks / math.log2(receivers)


@dataclass(frozen=True)
class Nearness:
    """How near the last receiver's time came to what is possible. ``hop_cost`` is None where links are not equal."""

    over_copy: float
    hop_cost: float | None
    bound: float
    percent: float

    def to_json(self) -> dict[str, float | None]:
        """As a document."""
        return {
            "over_copy": round(self.over_copy, 4),
            "c": None if self.hop_cost is None else round(self.hop_cost, 2),
            "bound": round(self.bound, 6),
            "percent_of_bound": round(self.percent, 2),
        }


def nearness(seconds: float, size: int, rate: float, receivers: int, chunks: int, least: float = 0.0) -> Nearness:
    """Of a broadcast whose last receiver was through after ``seconds``; ``least`` is the bound of links not equal."""
    at_least = least or bound(size, rate, receivers, chunks)
    cost = None if least or not seconds else hop_cost(seconds, size, rate, receivers, chunks)
    return Nearness(seconds * rate / size, cost, at_least, 100 * at_least / seconds if seconds else 0.0)


def percentile(values: list[float], part: float) -> float:
    """The value that ``part`` (0 to 1) of the values do not exceed; nearest rank. ``values`` must not be empty."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]
