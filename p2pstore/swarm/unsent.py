"""What an origin has never sent: it names that to its followers, so that it sends each chunk about once. Pure.

What an origin sends twice it could have sent once, for the followers to pass on. Followers that choose for themselves
choose the same now and then, the more often the more of them there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from p2pstore.swarm.rarity import RUN_BYTES, RUN_CHUNKS


class Unsent:
    """The chunks that were not named yet, and those that came back. True while there are any.

    ``lengths[i]`` is the size of chunk i in bytes. It begins at chunk ``start``: several origins should begin in
    different places, so that together they send each chunk about once.
    """

    def __init__(self, lengths: Sequence[int], start: int = 0) -> None:
        self._lengths = lengths
        self._first = start % len(lengths) if lengths else 0
        self._next = self._first
        self._left = len(lengths)
        self._returned: deque[range] = deque()

    def __bool__(self) -> bool:
        return self._left > 0 or bool(self._returned)

    def name(self) -> range:
        """The next run: adjacent chunks that together have no more than ``RUN_BYTES``, unless it is one."""
        if self._returned:
            return self._returned.popleft()
        first = self._next
        end = len(self._lengths) if first >= self._first else self._first
        end = min(end, first + RUN_CHUNKS)
        stop, total = first + 1, self._lengths[first]
        while stop < end and total + self._lengths[stop] <= RUN_BYTES:
            total += self._lengths[stop]
            stop += 1
        self._left -= stop - first
        self._next = stop % len(self._lengths)
        return range(first, stop)

    def put_back(self, run: range) -> None:
        """A run that was named was not sent."""
        self._returned.append(run)
