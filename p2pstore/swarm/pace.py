"""How many fetches from one node run at a time, and how early the next is granted. Pure.

Each hop of a chunk through a swarm takes as long as an uploader's fetches take that run at a time, so there should be
few. But what is said takes time, too: a fetch is granted, asked for and done in three messages, in which its place
sends nothing. So there are the more, and the next is granted the earlier before one ends, the shorter a chunk's time is
compared with a message's. Both are measured, and told with each grant, so that the getters keep as many under way.

By simulation: three where a chunk takes ten times as long as a question and its answer or more, five or six with
twice. One too many costs a swarm of 32 about one point of the bound, one too few five. Two would win a point with 100
nodes and 100 chunks, and lose five with 8 nodes. All nodes of a swarm should come to the same: where uploaders have two
places and getters a window of three, a fifth is lost.
"""

from __future__ import annotations

import math

from engine.patience import AVERAGE_WEIGHT

MIN_PLACES = 3
MAX_PLACES = 8

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

    def __init__(self) -> None:
        self._turn = 0.0  # what a question and its answer take
        self._chunk = 0.0  # what a fetch takes, that has the link for itself
        # What follows from these is asked for more often than it changes.
        self.places = MIN_PLACES
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
            self.places = min(MAX_PLACES, max(MIN_PLACES, 2 + round(4 * math.sqrt(turn / chunk))))
            self.lead = min(MAX_LEAD, TURNS * turn / (chunk * self.places))


def _average(before: float, seconds: float) -> float:
    return before + AVERAGE_WEIGHT * (seconds - before) if before else seconds
