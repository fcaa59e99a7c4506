"""Offers: how an origin sends each chunk about once while others still lack it. Pure.

What an origin sends twice it could have sent once, for the getters to pass on. Getters that choose for themselves
choose the same now and then, the more often the more of them there are. So the origin deals: a getter asks for a few
runs, and is offered some that nobody else was offered. It fetches them, asks for more, and has the rest from others.

A getter that is quick asks more often, a slow one holds back no more than what it has been offered, and what was
offered to one that left is offered to others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from p2pstore.rarity import RUN_BYTES, RUN_CHUNKS

MAX_OFFERS = 16
"""Runs that one getter can be offered and not have fetched, whatever it asks for."""

MAX_GETTERS = 16
"""Getters that runs are dealt to at a time, so that what is offered is soon fetched; others have them from these."""


class Offers:
    """One round of dealing out one object. ``lengths[i]`` is the size of chunk i in bytes.

    A round begins at chunk ``start`` and ends when each chunk was offered, or was taken by a getter unasked.
    """

    def __init__(self, lengths: Sequence[int], start: int = 0) -> None:
        self._lengths = lengths
        self._dealt = bytearray(len(lengths))
        self._cursor = start % len(lengths) if lengths else 0
        self._left = len(lengths)
        self._returned: deque[range] = deque()
        self._held: dict[str, dict[range, None]] = {}  # what was offered and not fetched, in the order of offering

    def over(self, getter: str) -> bool:
        """Whether everything was offered, and fetched, so that this getter may ask for what it likes."""
        return getter in self._held and not (self._left or self._returned or any(self._held.values()))

    def ask(self, getter: str, count: int, done: Iterable[range] = ()) -> list[range]:
        """Up to ``count`` runs for a getter, which has fetched those in ``done``, offered to it or not."""
        held = self._held.get(getter, {})
        for run in done:
            if run not in held:
                self._take(run)
            held.pop(run, None)
        if getter not in self._held:
            if len(self._held) >= MAX_GETTERS:
                return []
            self._held[getter] = held
        offered: list[range] = []
        while len(offered) < count and len(held) < MAX_OFFERS and (self._left or self._returned):
            run = self._returned.popleft() if self._returned else self._deal()
            held[run] = None
            offered.append(run)
        return offered

    def leave(self, getter: str) -> None:
        """A getter is gone; what it was offered and has not fetched is offered to others."""
        self._returned.extend(self._held.pop(getter, {}))

    def _take(self, run: range) -> None:
        for chunk in run:
            if not self._dealt[chunk]:
                self._dealt[chunk] = 1
                self._left -= 1

    def _deal(self) -> range:
        """The next run: adjacent chunks that were not dealt, together no more than ``RUN_BYTES``, unless it is one."""
        first = self._dealt.find(0, self._cursor)
        if first < 0:
            first = self._dealt.find(0)
        stop, total = first + 1, self._lengths[first]
        while stop < len(self._lengths) and not self._dealt[stop] and stop - first < RUN_CHUNKS:
            total += self._lengths[stop]
            if total > RUN_BYTES:
                break
            stop += 1
        run = range(first, stop)
        self._take(run)
        self._cursor = stop
        return run
