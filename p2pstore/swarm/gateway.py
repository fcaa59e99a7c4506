"""Who of a zone fetches from other zones: of each share of the chunks one getter, its *gateway*. Pure.

The link between two zones may be thin, or cost money, so that each chunk should cross it once: what two of a zone
fetched abroad crossed it twice. So one does, and the others get it from that one and from each other; there are several
shares so that no one's own link carries all. Who has a share is *claimed*, and claims go from getter to getter as news
do: the better one stands. In a zone where somebody has everything, nobody has to fetch abroad, and that is the best
claim. An election takes no more time than telling all of a zone does, and that is waited for (``SETTLE_SECONDS``); who
came first stays. Times are in seconds.

Claims have a *term*. Those who get from the gateway itself see it leave, and begin the next; so does who is hungry.
Where getters of one zone know nothing of each other there are gateways for each part, so that nobody goes without.

A peer may claim what it never does, or say that it has everything, by mistake or to do harm. So whom an election does
not feed believes nobody any more, and fetches from abroad for itself.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from p2pstore.swarm.rarity import RUN_BYTES

SAME_HOST, SAME_ZONE, ELSEWHERE, ABROAD = range(4)
"""Distances of peers. ``ABROAD`` is in another zone, ``ELSEWHERE`` where one of the two is in none."""

SHARES = 4
"""Of the chunks, each with a gateway of its own in each zone. With one, zones whose links are as wide as all of theirs
took a quarter longer: it must take in everything, and send it."""

SETTLE_SECONDS = 0.25
"""For a candidate to hear of a better one; where others are near it fetches nothing abroad before."""

LONELY_SECONDS = 10.0
"""After an election because nothing came, for something to come: else a getter listens to no claims any more."""

MAX_TERM = 1 << 31
MAX_TOKEN = 1 << 32
"""Both are below these."""


class Rank(IntEnum):
    """What a claim rests on, the best first."""

    WHOLE = 0
    """Somebody in the zone has everything."""

    ACTING = 1
    """The gateway."""

    CANDIDATE = 2
    """Who will be, if nobody else is."""

    GUEST = 3
    """Who passes nothing on, so that nobody would have what it fetched."""


@dataclass(frozen=True)
class Claim:
    """Who the gateway of a share is, as far as somebody knows. ``token`` tells candidates apart.

    ``own``: it is whoever says so.
    """

    share: int
    term: int
    rank: Rank
    token: int
    own: bool = False

    def beats(self, other: Claim) -> bool:
        """Whether this one stands, of the two."""
        return (-self.term, self.rank, self.token) < (-other.term, other.rank, other.token)


class Gateway:
    """What one getter knows of one share's gateway in its zone, and whether that is itself."""

    def __init__(self, share: int, rng: random.Random, *, seeds: bool = True) -> None:
        """``seeds``: it passes on what it gets."""
        self._share = share
        self._random = rng
        self._seeds = seeds
        self._near: set[str] = set()  # peers of this zone
        self._whole: set[str] = set()  # those that have everything
        self._holder = ""  # the peer that claims it for itself
        self._since: float | None = None
        self._settled = False
        self._now = 0.0
        self._hungry_since: float | None = None
        self._lonely = False  # it believes nobody any more
        self.claim = self._own(0)
        """The best that is known."""

    @property
    def open(self) -> bool:
        """Whether this node is to fetch from abroad."""
        return self._lonely or (self.claim.own and (self._settled or not self._near))

    def near(self, peer: str, *, whole: bool) -> None:
        """There is a peer in this zone, which perhaps has everything."""
        self._near.add(peer)
        if whole:
            self._whole.add(peer)
            self._take(Claim(self._share, self.claim.term, Rank.WHOLE, 0))

    def gone(self, peer: str) -> None:
        """A peer is there no more."""
        self._near.discard(peer)
        if peer in self._whole:
            self._whole.remove(peer)
            if self.claim.rank == Rank.WHOLE and not self._whole:
                self._begin()
        elif peer == self._holder or not (self._near or self.claim.own):
            self._begin()

    def heard(self, peer: str, claim: Claim) -> None:
        """A peer of this zone says who it takes for the gateway."""
        if peer not in self._near:
            return
        same = (claim.term, claim.token) == (self.claim.term, self.claim.token)
        if peer == self._holder and not (same and claim.own) and not claim.beats(self.claim):
            self._begin()  # its pull was begun anew, and knows nothing of what it claimed
        holder = peer if claim.own else self._holder if same else ""
        self._take(replace(claim, own=False), holder)
        if same and not self.claim.own:
            self._holder = holder  # others may have told of it before
        if self._whole:
            self._take(Claim(self._share, self.claim.term, Rank.WHOLE, 0))

    def hungry(self) -> None:
        """Nothing has come for long: another may do better than the gateway, and where none does, this node itself."""
        if self.claim.own:
            return
        if self._hungry_since is None:
            self._hungry_since = self._now
            if self._seeds:
                self._begin()
        elif self._now - self._hungry_since >= LONELY_SECONDS:
            self._begin()
            self._lonely = True
            self.claim = self._own(self.claim.term)

    def fed(self) -> None:
        """Something has come."""
        self._hungry_since = None

    def pass_time(self, now: float) -> None:
        """A candidate that has heard of no better one is the gateway."""
        self._now = now
        if self._since is None:
            self._since = now
        if not self._settled and self.claim.own and now - self._since >= SETTLE_SECONDS:
            self._settled = True
            if self._seeds:
                self.claim = replace(self.claim, rank=Rank.ACTING)

    def _begin(self) -> None:
        """The next term: whoever is in it decides anew."""
        term = min(self.claim.term + 1, MAX_TERM - 1)
        self._holder = ""
        self._since = None
        self._settled = False
        self.claim = Claim(self._share, term, Rank.WHOLE, 0) if self._whole else self._own(term)

    def _own(self, term: int) -> Claim:
        rank = Rank.CANDIDATE if self._seeds else Rank.GUEST
        return Claim(self._share, term, rank, self._random.randrange(MAX_TOKEN), own=True)

    def _take(self, claim: Claim, holder: str = "") -> None:
        if not self._lonely and claim.beats(self.claim):
            self.claim = claim
            self._holder = holder


class Gateways:
    """The same of all shares."""

    def __init__(self, rng: random.Random, *, seeds: bool = True) -> None:
        """``seeds``: this getter passes on what it gets."""
        self._each = [Gateway(share, rng, seeds=seeds) for share in range(SHARES)]

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The best that are known, by share."""
        return tuple([each.claim for each in self._each])

    @property
    def open(self) -> frozenset[int]:
        """The shares that this node is to fetch from abroad."""
        return frozenset([share for share, each in enumerate(self._each) if each.open])

    def near(self, peer: str, *, whole: bool) -> None:
        """See ``Gateway.near``."""
        for each in self._each:
            each.near(peer, whole=whole)

    def gone(self, peer: str) -> None:
        """See ``Gateway.gone``."""
        for each in self._each:
            each.gone(peer)

    def heard(self, peer: str, claim: Claim) -> None:
        """See ``Gateway.heard``."""
        self._each[claim.share].heard(peer, claim)

    def hungry(self) -> None:
        """See ``Gateway.hungry``."""
        for each in self._each:
            each.hungry()

    def fed(self) -> None:
        """See ``Gateway.fed``."""
        for each in self._each:
            each.fed()

    def pass_time(self, now: float) -> None:
        """See ``Gateway.pass_time``."""
        for each in self._each:
            each.pass_time(now)


def share_of_each(lengths: Sequence[int]) -> list[int]:
    """Whose share each chunk is, of chunks of these sizes in bytes: those that make one run go together."""
    shares: list[int] = []
    run, total = 0, 0
    for length in lengths:
        if total and total + length > RUN_BYTES:
            run, total = run + 1, 0
        total += length
        shares.append(run % SHARES)
    return shares
