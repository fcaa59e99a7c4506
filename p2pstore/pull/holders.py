"""Which holders of an object are tried first, and when one that failed is tried again. Pure, but for chance."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.net.backoff import SOONER, Backoff
from p2pstore.swarm.gateway import SAME_ZONE

MAX_SOURCES = 16
"""Peers that one pull is connected to at once; others wait until one leaves."""

MAX_COMPLETE = 2
"""Of these, so many that are listed as complete are tried first, so that somebody has what a newcomer lacks."""

NEAR_SAMPLE = 64
"""Of so many holders, drawn at random, those near by are tried next, for up to half of the places."""

RETRIES = Backoff(0.5, 5.0, SOONER)
"""Pauses between attempts to read a holder's feed."""

PUT_OFF = Backoff(0.5, 15.0, SOONER)
"""Pauses before a holder that the pull gave up is tried again, until it delivers."""


def in_order(shuffled: Sequence[str], complete: Sequence[str], distances: Mapping[str, int]) -> list[str]:
    """Holders in the order in which to try them: a few that have everything, then those near by, then the others.

    ``shuffled`` are all of them, at random; ``complete`` have everything. Of some the ``distances`` are known.
    """
    if len(shuffled) <= MAX_SOURCES:
        return list(shuffled)
    whole = random.sample(complete, min(MAX_COMPLETE, len(complete)))
    near = [node for node in sorted(distances, key=distances.__getitem__) if distances[node] <= SAME_ZONE]
    return list(dict.fromkeys([*whole, *near[: MAX_SOURCES // 2], *shuffled]))


@dataclass
class Tries:
    """How often a holder failed in a row: its stream, and then what the pull asked of it."""

    failures: int = 0
    drops: int = 0

    def pause(self, *, dropped: bool, delivered: bool, lasted: float) -> float:
        """It ended again: how long to leave it alone. A stream that lasted is no proof that data come."""
        if delivered:
            self.drops = 0
        if dropped:
            self.drops += 1
            return PUT_OFF.after(self.drops)
        self.failures = 1 if lasted > RETRIES.last else self.failures + 1
        return RETRIES.after(self.failures)
