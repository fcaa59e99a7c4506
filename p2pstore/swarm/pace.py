"""How many fetches from one node run at a time, and how early the next is granted. Pure.

Each hop of a chunk through a swarm takes as long as an uploader's fetches take that run at a time, so there should be
few. But with few a link is idle now and then, since its getters' links are shared unequally. Hops are paid once, idle
links all the time: with p places the one costs about A·p/k of the time for an object in k fetches, the other C/p², so
that least is lost where p grows with the cube root of k. Everybody knows k.

What is said takes time, too: a fetch is granted, asked for and done in three messages, in which its place sends
nothing. So there are some more, and the next is granted the earlier before one ends, the shorter a chunk's time is
compared with a message's. Both are measured, and told with each grant, so that the getters keep as many under way.

All nodes of a swarm should come to the same: where uploaders have two places and getters a window of three, a fifth is
lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.patience import AVERAGE_WEIGHT
from p2pstore.swarm.rarity import RUN_BYTES

MIN_PLACES = 2
MAX_PLACES = 8

PLACES_OF_FETCHES = 0.4
PLACES_OF_TURNS = 4.0
"""Places for the cube root of an object's fetches, and for the square root of a question's time over a chunk's.

By simulation, of 8 to 1,000 nodes: two places are best with 50 and 100 chunks, three with 256, four with 400, five with
1,500 and 2,087; and where a chunk takes twice as long as a question and its answer, seven or eight with 1,000.
"""

FIRST_LEAD = 1 / 16
"""While nothing has been measured."""

MAX_LEAD = 1 / 2

MIN_LATE = 0.005
MAX_LATE = 1.0
LATE_CHUNKS = 16
"""So many chunks' time, in seconds between the first two, a follower may wait for news of chunks.

Of what it may fetch it hears with each grant. What others have it needs to know to take the rarest, and no chunk's
rarity changes so fast: in simulations of 8 to 100 nodes sixteen chunks' time cost nothing, and saved a tenth of all
messages beside four. Told at once, news were half of all that a swarm of 8 says, and two thirds with 16.
"""

TURNS = 2.0
"""So many times a question and its answer before its end a fetch counts as done."""


class Pace:
    """What one uploader has measured. Times are in seconds."""

    def __init__(self, fetches: int = 1) -> None:
        """The whole object takes so many fetches."""
        self._least = PLACES_OF_FETCHES * math.pow(fetches, 1 / 3)
        self._turn = 0.0  # what a question and its answer take
        self._chunk = 0.0  # what a fetch takes, that has the link for itself
        # What follows from these is asked for more often than it changes.
        self.places = self._places(0.0)
        """Fetches at a time."""
        self.lead = FIRST_LEAD
        """The part of a fetch, 0 to 1, that is left when the next is to be granted."""

    def answered(self, seconds: float) -> None:
        """A grant was declined so long after it was given: there and back, nothing else."""
        self._turn = _average(self._turn, seconds)
        self._measured()

    def took(self, seconds: float, at_once: int) -> None:
        """A fetch took so long, of so many that ran."""
        self._chunk = _average(self._chunk, seconds / at_once)
        self._measured()

    @property
    def places_of_origin(self) -> int:
        """The same for one that has chunks which it never sent.

        Its link must never be idle, since all wait for it; what more places cost, they cost on the first hop alone.
        """
        return self.places + self.places // 3

    @property
    def late(self) -> float:
        """How long a follower may go without news of chunks."""
        return min(MAX_LATE, max(MIN_LATE, LATE_CHUNKS * self._chunk))

    def _measured(self) -> None:
        turn, chunk = self._turn, self._chunk
        if turn and chunk:
            self.places = self._places(turn / chunk)
            self.lead = min(MAX_LEAD, TURNS * turn / (chunk * self.places))

    def _places(self, turns: float) -> int:
        """How many, where a question and its answer take so many times a chunk's time."""
        return min(MAX_PLACES, max(MIN_PLACES, round(self._least + PLACES_OF_TURNS * math.sqrt(turns))))


def fetches(lengths: Sequence[int]) -> int:
    """How many fetches an object takes whose chunks have so many bytes: small ones come several at a time."""
    return math.ceil(sum(min(1.0, length / RUN_BYTES) for length in lengths))


def _average(before: float, seconds: float) -> float:
    return before + AVERAGE_WEIGHT * (seconds - before) if before else seconds
