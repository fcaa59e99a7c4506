"""Which pair of devices takes the next piece, and which is left alone after a failure. Pure: time comes in.

A rail is a device of ours and one of the peer's, with the queue pairs between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine.net.backoff import Backoff

PAUSES = Backoff(1.0, 30.0)
"""For so long a rail is left alone after it failed."""


@dataclass
class Rail:
    """One rail as the scheduler sees it.

    ``name`` is for people. ``tier`` 0 is preferred, by the priority matrix of both sides. ``room`` is how many requests
    fit into its queue pairs now; ``under_way`` counts bytes.
    """

    name: str
    tier: int = 0
    room: int = 0
    under_way: int = 0
    moved: int = 0
    failures: int = 0
    paused_until: float = 0.0
    alive: bool = field(default=False)

    def began(self, length: int) -> None:
        """A piece was handed to it."""
        self.room -= 1
        self.under_way += length

    def ended(self, length: int, *, well: bool) -> None:
        """A piece has left it."""
        self.room += 1
        self.under_way -= length
        if well:
            self.moved += length
            self.failures = 0

    def failed(self, now: float) -> None:
        """It broke: it has no queue pairs any more, and is left alone for a while."""
        self.alive = False
        self.failures += 1
        self.paused_until = now + PAUSES.after(self.failures)


def pick(rails: Iterable[Rail]) -> Rail | None:
    """The rail for the next piece: of the best tier that is alive, the one with the fewest bytes under way.

    None where that one's queues are full: a worse tier is for failures, not for haste.
    """
    alive = [rail for rail in rails if rail.alive]
    if not alive:
        return None
    tier = min(rail.tier for rail in alive)
    found = [rail for rail in alive if rail.tier == tier and rail.room > 0]
    return min(found, key=lambda rail: rail.under_way, default=None)


def to_revive(rails: Sequence[Rail], now: float) -> list[Rail]:
    """The rails to connect again now: those whose pause is over, and where none is alive, all, the best first."""
    dead = [rail for rail in rails if not rail.alive]
    if len(dead) < len(rails):
        return [rail for rail in dead if rail.paused_until <= now]
    return sorted(dead, key=lambda rail: (rail.failures, rail.tier, rail.paused_until))
