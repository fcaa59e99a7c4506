"""Who follows one replica: whether there is room, who shares it with whom, and what each is granted. Pure.

A node tells those who follow a replica what it has. One that had everything when they came is an *origin* to them; it
is *shared* by a follower and another who passes on what it gets. Followers that take grants are granted fetches (see
``p2pstore.swarm.granter``); those to whom it is an origin are while they share it, since one that is alone asks for
what it likes. Keys tell followers apart; times are the caller's, in seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from p2pstore.swarm.granter import Granter
from p2pstore.swarm.pace import fetches
from p2pstore.swarm.unsent import Unsent

MAX_LISTENERS = 64
"""Getters that follow one replica at once. Each follows several others, so that more than these are reached."""


@dataclass
class _Follower:
    seeds: bool
    whole: bool
    grants: bool
    abroad: bool
    shared: bool = False
    speaks: bool = False


class Audience:
    """Those who follow one replica."""

    def __init__(self, lengths: Callable[[], Sequence[int]], rng: random.Random) -> None:
        """``lengths()`` are the sizes of the chunks in bytes."""
        self._lengths = lengths
        self._random = rng
        self._followers: dict[str, _Follower] = {}
        self._seeding = 0
        self.granter = Granter(rng, self._unsent, lambda: fetches(self._lengths()))
        """To be told what followers say, and asked for grants after each call of either."""

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

    def join(self, key: str, *, seeds: bool, whole: bool, grants: bool, abroad: bool = False) -> list[str]:
        """Somebody follows from now on: who of the others are to be told that it is now otherwise with sharing.

        ``seeds``: it passes on what it gets. ``whole``: the replica is, so that it takes it for an origin. ``grants``:
        it will take grants, once it ``speaks``; one of an earlier version does not, and is never told that it shares.
        ``abroad``: it is in another zone, where it is settled who fetches what: it is named nothing.
        """
        self._followers[key] = _Follower(seeds, whole, grants, abroad)
        self._seeding += seeds
        return [each for each in self._changed() if each != key]

    def speaks(self, key: str, *, empty: bool = False) -> bool:
        """What a follower says is heard from now on, so that it may be granted something; False for one that may not.

        ``empty``: there is nothing to fetch yet.
        """
        follower = self._followers.get(key)
        if follower is None or not follower.grants or follower.speaks:
            return False
        follower.speaks = True
        if follower.shared or not follower.whole:
            self._grant(key, follower, empty=empty)
        return True

    def hushed(self, key: str) -> None:
        """A follower is not heard any more: it is granted nothing, and what was granted is void."""
        if key in self._followers:
            self._followers[key].speaks = False
        self.granter.leave(key)

    def leave(self, key: str) -> list[str]:
        """Somebody is gone: who are to be told that it is now otherwise with sharing."""
        follower = self._followers.pop(key, None)
        if follower is None:
            return []
        self._seeding -= follower.seeds
        self.granter.leave(key)
        return self._changed()

    def _changed(self) -> list[str]:
        """Those who take the replica for an origin, and share it now and did not before, or the other way round."""
        changed = []
        for key, follower in self._followers.items():
            shared = self._seeding > follower.seeds
            if follower.whole and follower.grants and shared != follower.shared:
                follower.shared = shared
                changed.append(key)
                if shared and follower.speaks:
                    self._grant(key, follower)
                else:
                    self.granter.leave(key)
        return changed

    def _grant(self, key: str, follower: _Follower, *, empty: bool = False) -> None:
        """From now on it is granted something. What an origin sends to another zone its own could have got instead."""
        origin, abroad = follower.whole, follower.abroad
        self.granter.join(key, seeds=follower.seeds, origin=origin and not abroad, last=origin and abroad, empty=empty)

    def _unsent(self) -> Unsent:
        lengths = self._lengths()
        return Unsent(lengths, self._random.randrange(max(1, len(lengths))))
