"""This node's zone, as one pull knows it: which chunks the node is to fetch from other zones, and whom that concerns.

A node in no zone has nobody near it and nobody abroad, and nothing of this changes. Pure.
See ``p2pstore.swarm.gateway``.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2pstore.swarm.gateway import ABROAD, SAME_ZONE, Claim, Gateways, share_of_each

MAX_NEWS = 16
"""How often others are told of claims between two looks at the clock. An election takes some four; a peer that says
ever better ones makes a zone say no more than this."""


class Zone:
    """The zone of one pull. ``lengths`` are the sizes of the chunks in bytes; ``gateways`` None stands for no zone."""

    def __init__(self, lengths: Sequence[int], gateways: Gateways | None) -> None:
        self._gateways = gateways
        self._shares = share_of_each(lengths) if gateways is not None else []
        self._claimed: tuple[Claim, ...] = ()
        self._open: frozenset[int] = frozenset()
        self._news_left = MAX_NEWS
        self._given_time = False  # to an election, since something came
        self.mine: frozenset[int] = frozenset()
        """The chunks that this node is to fetch from abroad, as of the last ``reopens``."""

    @property
    def known(self) -> bool:
        """Whether this node is in a zone."""
        return self._gateways is not None

    def abroad(self, distance: int) -> bool:
        """Whether a peer so far away is in another zone."""
        return self._gateways is not None and distance == ABROAD

    def near(self, peer: str, distance: int, *, whole: bool) -> None:
        """There is a peer so far away, which perhaps has everything."""
        if self._gateways is not None and distance <= SAME_ZONE:
            self._gateways.near(peer, whole=whole)

    def gone(self, peer: str) -> None:
        """A peer is there no more."""
        if self._gateways is not None:
            self._gateways.gone(peer)

    def heard(self, peer: str, claim: Claim) -> None:
        """A peer says who it takes for a gateway of its zone."""
        if self._gateways is not None:
            self._gateways.heard(peer, claim)

    def hungry(self) -> None:
        """Nothing has come for long."""
        if self._gateways is not None:
            self._gateways.hungry()

    def fed(self) -> None:
        """Something has come."""
        self._given_time = False
        if self._gateways is not None:
            self._gateways.fed()

    def pass_time(self, now: float) -> None:
        """It is so late, in seconds."""
        self._news_left = MAX_NEWS
        if self._gateways is not None:
            self._gateways.pass_time(now)

    def news(self) -> tuple[list[Claim], bool]:
        """The claims that are others since the last call, and whether an election has begun that is given time.

        Only the first since something came is: a peer that began one after the other would let nobody get hungry.
        """
        before = self._claimed
        if self._gateways is None or (now := self._gateways.claims) == before or self._news_left <= 0:
            return [], False
        self._claimed = now
        self._news_left -= 1
        election = bool(before) and any(new.term != old.term for new, old in zip(now, before, strict=True))
        given, self._given_time = self._given_time, self._given_time or election
        return [claim for claim in now if claim not in before], election and not given

    def reopens(self) -> bool:
        """Look which chunks are ``mine`` now; whether these are others than before."""
        if self._gateways is None or (now := self._gateways.open) == self._open:
            return False
        self._open = now
        self.mine = frozenset([chunk for chunk, share in enumerate(self._shares) if share in now])
        return True
