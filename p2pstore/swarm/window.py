"""How much a getter fetches on grants at a time, and who waits for word that it has room again. Pure.

Few fetches at a time, so that each ends soon: until then its chunk cannot be passed on. One that is nearly through does
not count any more, so that the next is granted by the time when it ends; nor does one that takes much longer than
fetches take, or a slow uploader would keep the others' chunks away.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.patience import Patience
from p2pstore.swarm.pace import MIN_PLACES

TOLD = 1
FEW_TOLD = 2
"""Peers that are told at once of room for one fetch: what the others would grant, too, would be declined.

The second where a window has but ``MIN_PLACES``, with objects of few chunks: one told who has no free place costs most
there, a point of the bound, and messages are few.
"""

PATIENCE = 3.0
MIN_PATIENCE = 0.25
"""A fetch is slow when it takes so many times longer than fetches take, and so many seconds at least."""


class Window:
    """The fetches of one pull that were granted, by peer and run."""

    def __init__(self) -> None:
        self.size = MIN_PLACES
        """Fetches on grants at a time, as uploaders say."""
        self._counted: dict[tuple[str, range], float] = {}  # and since when, the oldest first
        self._owed: dict[str, None] = {}
        self._patience = Patience(MIN_PATIENCE)

    @property
    def under_way(self) -> int:
        """Fetches that count."""
        return len(self._counted)

    @property
    def full(self) -> bool:
        """Whether no further grant is to be taken."""
        return len(self._counted) >= self.size

    @property
    def owes(self) -> bool:
        """Whether there is room, and somebody who is to hear of it."""
        return bool(self._owed) and len(self._counted) < self.size

    def take(self, peer: str, run: range, now: float) -> None:
        """A grant is taken."""
        self._counted[peer, run] = now

    def release(self, peer: str, run: range) -> None:
        """A fetch counts no more: it has ended, or is nearly through."""
        self._counted.pop((peer, run), None)

    def took(self, seconds: float) -> None:
        """A fetch took so long."""
        self._patience.took(seconds, most=PATIENCE)

    def pass_slow(self, now: float) -> None:
        """Let go of fetches that take too long."""
        limit = self._patience.limit(PATIENCE)
        while self._counted and now - next(iter(self._counted.values())) > limit:
            del self._counted[next(iter(self._counted))]

    def owe(self, peer: str) -> None:
        """A peer is to hear when there is room."""
        self._owed.pop(peer, None)
        self._owed[peer] = None

    def forget(self, peer: str) -> None:
        """A peer is gone, or has heard."""
        self._owed.pop(peer, None)

    def owed(self, waits: Callable[[str], bool]) -> list[str]:
        """Who is to hear that there is room: nobody while there is none, and not all at once, nor who ``waits``.

        Who was declined last comes first: it most likely still has a free place.
        """
        room = (TOLD if self.size > MIN_PLACES else FEW_TOLD) * (self.size - len(self._counted))
        told: list[str] = []
        for peer in reversed(self._owed):
            if len(told) >= room:
                break
            if not waits(peer):
                told.append(peer)
        return told
