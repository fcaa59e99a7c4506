"""Offers: how an origin sends each chunk about once while others still lack it. Pure; the time is the caller's.

What an origin sends twice it could have sent once, for the getters to pass on. Getters that choose for themselves
choose the same now and then, the more often the more of them there are. So the origin deals: a getter asks for a few
runs, and is offered some that nobody else was offered. It fetches them, asks for more, and has the rest from others.

A getter that is quick asks more often. What was offered to one that left is offered to others, and so is, once, what a
getter has not fetched after much longer than getters take: else all would wait for the slowest in the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.patience import Patience
from p2pstore.swarm.rarity import RUN_BYTES, RUN_CHUNKS

MAX_OFFERS = 16
"""Runs that one getter can be offered and not have fetched, whatever it asks for."""

MAX_GETTERS = 16
"""Getters that runs are dealt to at a time, so that what is offered is soon fetched; others have them from these."""

PATIENCE = 4.0
"""A run is overdue when its getter takes so many times longer than getters take on average."""

LAST_PATIENCE = 2.0
"""The same, when nothing else is left to offer."""

MIN_PATIENCE = 1.0
"""Seconds before which no run is overdue."""


@dataclass
class _Offer:
    since: float
    repeated: bool = False


class Dealing:
    """One round of dealing out one object. ``lengths[i]`` is the size of chunk i in bytes.

    A round begins at chunk ``start`` and ends when each chunk was offered and fetched, or was taken unasked.
    """

    def __init__(self, lengths: Sequence[int], start: int = 0) -> None:
        self._lengths = lengths
        self._dealt = bytearray(len(lengths))
        self._cursor = start % len(lengths) if lengths else 0
        self._left = len(lengths)
        self._returned: deque[range] = deque()
        self._held: dict[str, dict[range, _Offer]] = {}  # what was offered and not fetched, the oldest first
        self._patience = Patience(MIN_PATIENCE)

    def over(self, getter: str) -> bool:
        """Whether everything was offered, and fetched, so that this getter may ask for what it likes."""
        return getter in self._held and not (self._left or self._returned or any(self._held.values()))

    def ask(self, getter: str, count: int, done: Iterable[range] = (), *, now: float = 0.0) -> list[range]:
        """Up to ``count`` runs for a getter, which has fetched those in ``done``, offered to it or not.

        ``now`` is the time in seconds, which never goes back.
        """
        for run in done:
            self._fetched(getter, run, now)
        held = self._held.get(getter)
        if held is None:
            if len(self._held) >= MAX_GETTERS:
                return []
            held = self._held[getter] = {}
        offered: list[range] = []
        while len(offered) < count and len(held) < MAX_OFFERS:
            more = self._next(getter, now)
            if more is None:
                break
            offered.append(more)
        return offered

    def leave(self, getter: str) -> None:
        """A getter is gone; what it was offered and has not fetched is offered to others."""
        self._returned.extend(self._held.pop(getter, {}))

    def _fetched(self, getter: str, run: range, now: float) -> None:
        offer = self._held.get(getter, {}).pop(run, None)
        if offer is None:
            self._take(run)
        else:
            self._patience.took(now - offer.since, most=PATIENCE)

    def _next(self, getter: str, now: float) -> range | None:
        """One run to offer: one that came back, one that is overdue elsewhere, or one that nobody was offered."""
        repeated = False
        if self._returned:
            run: range | None = self._returned.popleft()
        else:
            run = self._overdue(getter, now)
            repeated = run is not None
            if run is None and self._left:
                run = self._deal()
        if run is not None:
            self._held[getter][run] = _Offer(now, repeated)
        return run

    def _overdue(self, getter: str, now: float) -> range | None:
        patience = self._patience.limit(PATIENCE if self._left else LAST_PATIENCE)
        for other, held in self._held.items():
            if other == getter or not held:
                continue
            run, offer = next(iter(held.items()))
            if not offer.repeated and now - offer.since > patience and run not in self._held[getter]:
                # It goes to the end of its getter's, so that the next is looked at.
                held[run] = _Offer(held.pop(run).since, repeated=True)
                return run
        return None

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
