"""Who follows one replica: whether there is room, who shares it with whom, what each is offered. Pure.

A node tells those who follow a replica what it has. One that had everything when they came is an *origin* to them; it
is *shared* by a follower and another who passes on what it gets, and then deals (see ``p2pstore.swarm.dealing``). Keys
tell followers apart; times are the caller's, in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from p2pstore.swarm.dealing import Dealing

MAX_LISTENERS = 64
"""Getters that follow one replica at once. Each follows several others, so that more than these are reached."""


@dataclass
class _Follower:
    seeds: bool
    whole: bool
    shared: bool = False


class Audience:
    """Those who follow one replica."""

    def __init__(self, lengths: Callable[[], Sequence[int]], start: Callable[[int], int]) -> None:
        """``lengths()`` are the sizes of the chunks in bytes. A round of dealing begins at chunk ``start(count)``.

        Several origins should begin in different places, so that together they send each chunk about once.
        """
        self._lengths = lengths
        self._start = start
        self._followers: dict[str, _Follower] = {}
        self._seeding = 0
        self._offers: Dealing | None = None

    def __len__(self) -> int:
        return len(self._followers)

    @property
    def full(self) -> bool:
        """Whether nobody more should join."""
        return len(self._followers) >= MAX_LISTENERS

    @property
    def seeding(self) -> int:
        """How many pass on what they get."""
        return self._seeding

    def shared(self, key: str) -> bool:
        """Whether a follower has heard that it shares an origin."""
        return self._followers[key].shared

    def join(self, key: str, *, seeds: bool, whole: bool) -> list[str]:
        """Somebody follows from now on: who of the others are to be told that it is now otherwise with sharing.

        ``seeds``: it passes on what it gets. ``whole``: the replica is, so that it takes it for an origin.
        """
        self._followers[key] = _Follower(seeds, whole)
        self._seeding += seeds
        return [each for each in self._changed() if each != key]

    def leave(self, key: str) -> list[str]:
        """Somebody is gone: who are to be told that it is now otherwise with sharing."""
        follower = self._followers.pop(key, None)
        if follower is None:
            return []
        self._seeding -= follower.seeds
        if self._offers is not None:
            self._offers.leave(key)
            if not self._followers:
                self._offers = None  # whoever comes next begins a round of its own
        return self._changed()

    def offers(self, key: str, count: int, done: Iterable[range], now: float) -> tuple[list[range], bool]:
        """Up to ``count`` runs for a follower to fetch, which has fetched those in ``done``; the replica is whole.

        The second is whether everything was offered. Who does not follow, or passes nothing on, is offered nothing.
        """
        follower = self._followers.get(key)
        if follower is None or not follower.seeds:
            return [], False
        if self._offers is None:
            lengths = self._lengths()
            self._offers = Dealing(lengths, self._start(max(1, len(lengths))))
        return self._offers.ask(key, count, done, now=now), self._offers.over(key)

    def _changed(self) -> list[str]:
        """Those who take the replica for an origin, and share it now and did not before, or the other way round."""
        changed = []
        for key, follower in self._followers.items():
            shared = self._seeding > follower.seeds
            if follower.whole and shared != follower.shared:
                follower.shared = shared
                changed.append(key)
        return changed
