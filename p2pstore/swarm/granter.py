"""Grants: who may fetch from a replica now. The uploader's side of late binding. Pure; the time is the caller's.

A chunk that is chosen when it is asked for waits in one uploader's queue while another is idle, and each hop of a chunk
through the swarm takes as many chunk times as an uploader has sends under way. So nothing is asked for in advance: an
uploader with a free *place* grants it to a follower that has room, and that chooses the chunk then. A place is free
again when the follower says that its fetch is done, or nearly so, or declines; also when it leaves.

A follower that declined is not granted anything before it has said that it has room, or, where it lacked nothing that
this node has, before it was told of more. A fetch that takes much longer than fetches take goes on without its place,
and its follower is granted nothing more meanwhile: so none that hangs, or never answers, keeps a place from the others.
Until one of its fetches was quick again, a follower of such a one is granted the next beside the places; but an origin
that has chunks which it never sent sends these to others as long as there are any.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.patience import Patience
from p2pstore.swarm.pace import FIRST_LEAD, MIN_PLACES, Pace
from p2pstore.swarm.unsent import Unsent

PATIENCE = 3.0
"""A fetch is slow when it takes so many times longer than fetches take on average."""

MIN_PATIENCE = 0.25
FIRST_PATIENCE_SECONDS = 10.0
"""Seconds before which no fetch is called slow; the second while none has ended yet."""

UNDER_WAY = 1 << 53
"""More fetches than anybody can say that it has under way."""


@dataclass(slots=True)
class Grant:
    """Leave for a follower to fetch one run: the one that is named, or, with none, which it likes.

    Nobody changes one. It is not frozen because they are made by the million, and a frozen one takes twice as long.
    ``window`` is how many fetches it should have under way at a time, ``lead`` the part of one, 0 to 1, that is left
    when it should call that done. See ``p2pstore.swarm.pace``.
    """

    key: str
    number: int
    run: range | None
    window: int = MIN_PLACES
    lead: float = FIRST_LEAD


@dataclass(slots=True, eq=False)
class _Grant:
    follower: _Follower
    since: float
    run: range | None
    tellings: int  # before it
    slow: bool = False


@dataclass(slots=True, eq=False)
class _Follower:
    key: str
    seeds: bool
    origin: bool  # this node is, to it
    rank: int  # who is granted something first, before how busy it is: the lowest
    under_way: int = 0  # of its fetches, from anybody, as it last said
    grants: dict[int, _Grant] = field(default_factory=dict)
    slow: int = 0  # of these, so many go on without a place


class Granter:
    """The places of one replica.

    ``unsent()`` is what an origin names of, ``fetches()`` how many fetches all of the replica takes; the second is
    asked for when the first follower comes.
    """

    def __init__(
        self, rng: random.Random, unsent: Callable[[], Unsent], fetches: Callable[[], int] = lambda: 1
    ) -> None:
        self._random = rng
        self._make_unsent = unsent
        self._unsent: Unsent | None = None
        self._followers: dict[str, _Follower] = {}
        self._open: dict[str, _Follower] = {}  # have room, as far as is known
        self._lagging: dict[str, _Follower] = {}  # their last fetch was slow
        self._sated: dict[str, _Follower] = {}  # lacked nothing that this node had told them of
        self._running: dict[int, _Grant] = {}  # grants that have a place, the oldest first
        self._number = 0
        self._tellings = 0
        self._patience = Patience(MIN_PATIENCE, first=FIRST_PATIENCE_SECONDS)
        self._limit = self._patience.limit(PATIENCE)  # seconds
        self._fetches: Callable[[], int] | None = fetches
        self._pace = Pace()

    def __contains__(self, key: str) -> bool:
        return key in self._followers

    @property
    def under_way(self) -> int:
        """Grants that are neither done nor declined."""
        return sum(len(follower.grants) for follower in self._followers.values())

    @property
    def late(self) -> float:
        """Seconds after which a follower is to be told of chunks with which nothing was granted to it."""
        return self._pace.late

    @property
    def _places(self) -> int:
        return self._pace.places_of_origin if self._unsent else self._pace.places

    def join(self, key: str, *, seeds: bool, origin: bool, last: bool = False, empty: bool = False) -> None:
        """Somebody takes grants from now on.

        ``seeds``: it passes on what it gets, and comes before who does not. ``origin``: it takes this node for one, and
        is named what that never sent. ``last``: it comes after those who are. ``empty``: this node has nothing yet.
        """
        if key not in self._followers:
            if self._fetches is not None:
                self._pace, self._fetches = Pace(self._fetches()), None
            if origin and self._unsent is None:
                self._unsent = self._make_unsent()
            rank = UNDER_WAY * (2 * (not seeds) + last)
            follower = self._followers[key] = _Follower(key, seeds, origin, rank)
            (self._sated if empty else self._open)[key] = follower

    def leave(self, key: str) -> None:
        """It takes none any more; its grants are void."""
        follower = self._followers.pop(key, None)
        if follower is None:
            return
        for some in (self._open, self._sated, self._lagging):
            some.pop(key, None)
        for number, grant in follower.grants.items():
            self._end(number, grant)
            self._take_back(grant)
        follower.grants.clear()  # they refer to it
        if not self._followers:
            self._unsent = None  # whoever comes next has it all from the beginning

    def opened(self, key: str, under_way: int) -> None:
        """It has room for one more fetch than the ``under_way`` that it has."""
        follower = self._followers.get(key)
        if follower is not None:
            follower.under_way = under_way
            self._sated.pop(key, None)
            self._open[key] = follower

    def declined(self, key: str, number: int, under_way: int, now: float, *, full: bool) -> None:
        """It does not take a grant: it has no room (``full``), or lacks nothing that this node has."""
        follower = self._followers.get(key)
        grant = follower.grants.pop(number, None) if follower is not None else None
        if follower is None or grant is None:
            return
        follower.under_way = under_way
        self._pace.answered(now - grant.since)
        self._end(number, grant)
        self._take_back(grant)
        if not full and key not in self._open and key not in self._sated:
            # It may have declined before it heard of more that it has been told of since.
            waiting = self._sated if grant.tellings == self._tellings else self._open
            waiting[key] = follower

    def done(self, key: str, number: int, under_way: int, now: float, *, full: bool) -> None:
        """What it fetched on a grant is there, or nearly, or will not come. ``full``: it has no room for more."""
        follower = self._followers.get(key)
        grant = follower.grants.pop(number, None) if follower is not None else None
        if follower is None or grant is None:
            return
        follower.under_way = under_way
        self._lag(follower, lags=now - grant.since > self._limit)
        if not grant.slow:
            self._pace.took(now - grant.since, len(self._running))
        self._end(number, grant)
        self._patience.took(now - grant.since, most=PATIENCE)
        self._limit = self._patience.limit(PATIENCE)
        if not full:
            self._sated.pop(key, None)
            self._open[key] = follower

    def told(self) -> None:
        """There are more chunks that this node has: followers hear of them before a grant, or with it."""
        self._tellings += 1
        self._open.update(self._sated)
        self._sated.clear()

    def grants(self, now: float) -> list[Grant]:
        """What is granted now. To be called after each of the above, and when ``due`` is over."""
        self._part_with_slow(now)
        given: list[Grant] = []
        if self._lagging and not self._unsent:
            ready = [each for key, each in self._lagging.items() if key in self._open and not each.slow]
            given += [self._grant(each, now, beside=True) for each in ready]
        while self._open and len(self._running) < self._places and (follower := self._next()):
            given.append(self._grant(follower, now))
        return given

    @property
    def due(self) -> float:
        """The first time at which ``grants`` may say something if nothing else happens; infinite if never."""
        if not self._open or not self._running:
            return math.inf
        return math.nextafter(self._patient_until(), math.inf)

    def _next(self) -> _Follower | None:
        """Who is granted something: one that passes on before one that does not, the least busy first.

        One that is slow with an earlier grant is granted no other.
        """
        least = 5 * UNDER_WAY  # above every rank, and a whole number as they are
        among: list[_Follower] = []
        for follower in self._open.values():
            if follower.slow:
                continue
            busy = follower.rank + follower.under_way
            if busy < least:
                least = busy
                among = [follower]
            elif busy == least:
                among.append(follower)
        if len(among) > 1:
            return among[self._random.randrange(len(among))]
        return among[0] if among else None

    def _lag(self, follower: _Follower, *, lags: bool) -> None:
        """Its last fetch was slow, or was not."""
        if lags != (follower.key in self._lagging):
            follower.rank += UNDER_WAY if lags else -UNDER_WAY
            if lags:
                self._lagging[follower.key] = follower
            else:
                del self._lagging[follower.key]

    def _grant(self, follower: _Follower, now: float, *, beside: bool = False) -> Grant:
        """Grant it something, which takes a place, or none where it is ``beside`` them."""
        del self._open[follower.key]
        self._number += 1
        run = self._unsent.name() if self._unsent and follower.origin and follower.seeds else None
        grant = _Grant(follower, now, run, self._tellings, slow=beside)
        follower.grants[self._number] = grant
        if beside:
            follower.slow += 1
        else:
            self._running[self._number] = grant
        return Grant(follower.key, self._number, run, self._pace.places, self._pace.lead)

    def _end(self, number: int, grant: _Grant) -> None:
        if grant.slow:
            grant.follower.slow -= 1
        else:
            del self._running[number]

    def _take_back(self, grant: _Grant) -> None:
        if grant.run is not None and self._unsent is not None:
            self._unsent.put_back(grant.run)

    def _part_with_slow(self, now: float) -> None:
        """Take their places from fetches that take too long; what they were to bring others get, too."""
        while self._running and now > self._patient_until():
            number, grant = next(iter(self._running.items()))
            self._end(number, grant)
            grant.slow = True
            grant.follower.slow += 1
            self._take_back(grant)
            grant.run = None

    def _patient_until(self) -> float:
        """Until when the oldest fetch may keep its place."""
        return next(iter(self._running.values())).since + self._limit
