"""Which of the chunks that are missing each peer could bring, and which of them it is asked for next. Pure.

An origin has everything, so what it could bring is what is missing. Of a getter the chunks are noted that it has and
this node lacks, as they are heard of: its *candidates*, from which those that came meanwhile are dropped when they are
met. A peer abroad brings only chunks of this node's share of them, and of these what no getter of its own zone has.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.files import NO_FILES, Files
from p2pstore.swarm.peer import Peer
from p2pstore.swarm.rarity import Missing
from p2pstore.swarm.zone import Zone

DRAWN = 16
"""Chunks that a getter has which are drawn at random, to take the rarest of; or an origin, to take one of another file
than those that are on their way."""


class Supply:
    """The chunks of one pull. ``missing`` are those that are neither had nor taken."""

    def __init__(
        self, lengths: Sequence[int], had: Bitmap, zone: Zone, rng: random.Random, files: Files = NO_FILES
    ) -> None:
        """``files`` are those that are written to, where several at once are better."""
        self.had = had
        self.files = files
        self.missing = Missing(had.missing(), lengths, rng)
        self._zone = zone

    def has(self, peer: Peer, chunks: Iterable[int]) -> None:
        """A peer has these."""
        if peer.abroad:
            more = [chunk for chunk in chunks if peer.have.add(chunk)]
            peer.candidates += [chunk for chunk in more if chunk in self._zone.mine and chunk not in self.had]
        elif peer.origin:
            peer.have.update(chunks)
        else:
            peer.candidates += self.missing.gain(chunks, peer.have, self.had)

    def gone(self, peer: Peer) -> bool:
        """A peer takes part no more. Whether it was one that spread chunks in this zone."""
        if peer.origin or peer.abroad:
            return False
        self.missing.spread(peer.have, -1)
        return True

    def reopen(self, peer: Peer) -> None:
        """This node's share of what is abroad is another one: look again what a peer there could bring."""
        mine = self._zone.mine
        peer.candidates = [n for n in peer.have if n in mine and n not in self.had]

    def arrived(self, run: Iterable[int], *, landed: bool) -> None:
        """These arrived. What comes late from a peer that left counts only if nobody writes the same place now."""
        for chunk in run:
            if landed or chunk in self.missing:
                self.had.add(chunk)
                self.missing.discard(chunk)

    def put_back(self, chunk: int, peers: Iterable[Peer]) -> None:
        """A chunk that was taken is missing again, and may be asked of any of the peers that have it."""
        self.missing.put_back(chunk)
        for peer in peers:
            takes = chunk in self._zone.mine if peer.abroad else not peer.origin
            if takes and chunk in peer.have:
                peer.candidates.append(chunk)

    def pick(self, peer: Peer, most: int, under_way: Iterable[range] | None = None) -> range:
        """Take what is to be asked of a peer next: the rarest of what it has, and what lies around it.

        The run has ``most`` bytes, or is one chunk; it is empty where the peer has nothing that is missing. Where it is
        known what is ``under_way``, an origin is asked for another file.
        """
        if peer.abroad:
            first = self.missing.draw_new(peer.candidates, DRAWN)
        elif not peer.origin:
            first = self.missing.draw(peer.candidates, DRAWN)
        elif under_way is None:
            first = self.missing.rarest()
        else:
            first = self.files.quietest(self.missing.some_rarest(DRAWN), under_way)
        if first is None:
            return range(0)
        return self.missing.take_run(first, peer.have, most=most, among=self._zone.mine if peer.abroad else None)

    def useful(self, peer: Peer) -> bool:
        """Whether a peer has a chunk that is missing, whoever of this zone is to fetch it."""
        if peer.origin:
            return bool(self.missing)
        if peer.abroad:
            return any(chunk in self.missing for chunk in peer.have)
        return self.missing.any_of(peer.candidates)

    def may_use(self, peer: Peer) -> bool:
        """Whether it has one that this node is to fetch from there."""
        return self.missing.any_of(peer.candidates) if peer.abroad else self.useful(peer)

    def may_bring(self, peer: Peer, run: range) -> bool:
        """Whether a run could be asked of a peer."""
        return peer.have.has_all(run) and not (peer.abroad and not self._zone.mine.issuperset(run))
