"""The planner: which chunk from which peer. Pure: events in, actions out; no clock, no socket, no thread of its own.

One owner feeds it events and carries out the actions that come back. Time is whatever the owner's clock says (seconds,
never going back), so the same object runs in production and in a simulator.

A chunk is *missing*, *in flight* at one peer, or *had*; only a verified chunk is had, so that chunks go from absent to
correct and never back. Two never write one place: what a peer has in flight when it is dropped or told to stop stays so
until its owner says that nothing of it is written any more (``Closed``, ``Released``, ``PeerGone``).

**Spreading.** Peers are *origins*, which had everything when they came, and *getters*, which have a part and get more.
Most are not asked: they *grant* (see ``p2pstore.swarm.granter``), and the chunk is chosen when a grant comes, so that
it is on its way at once. A few fetches run at a time (``p2pstore.swarm.window``); further grants are declined, and
those who gave them hear when there is room. From getters the rarest of a few chunks drawn at random is taken, so that
what few have is spread before what all have; an origin that several get from (which is *shared*) names what it never
sent.

**Zones.** From another zone only gateways fetch (see ``p2pstore.swarm.gateway`` and ``zone``), each its share, and of
that what no getter of its own zone has. What getters abroad have does not count as spread.

A peer of an earlier version, and an origin that nobody else gets from, are asked as their windows allow. So is anybody,
for one run, by a node that stays hungry.

Chunks that are small and adjacent are fetched in one run, so that a thousand tiny files cost tens of requests. With no
getters about, runs grow until one takes long enough for what each costs beside its bytes not to matter. A peer has a
bounded number of requests in flight. A fault costs the peer's own chunks only: they are missing again, and others
bring them. Faults of the peer's making end in a backoff that doubles, wrong bytes in a ban. A run that takes much
longer than runs take is taken away from its peer when another has it, sooner when nothing else is left to fetch; from
then on that peer is asked after all others, for one run at a time, until one arrives.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence

from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.events import (
    Action,
    Cancel,
    Claims,
    Closed,
    Declined,
    Done,
    Drop,
    Ending,
    Event,
    Failed,
    Fetch,
    Fetched,
    FetchFault,
    Granted,
    Opened,
    PeerAdded,
    PeerClaims,
    PeerGone,
    PeerHas,
    PeerShared,
    Released,
    Tick,
)
from p2pstore.swarm.files import NO_FILES, Files
from p2pstore.swarm.gateway import Gateways
from p2pstore.swarm.granter import Grant
from p2pstore.swarm.leaving import Leaving
from p2pstore.swarm.peer import Peer, Share
from p2pstore.swarm.rarity import RUN_BYTES
from p2pstore.swarm.run_times import RunTimes
from p2pstore.swarm.supply import Supply
from p2pstore.swarm.window import Window
from p2pstore.swarm.zone import Zone

HUNGRY_SECONDS = 10.0
"""A node that lacks something, and to which nothing is on its way for so long, asks somebody without a grant."""


class Planner:
    """Plans one pull.

    ``lengths[i]`` is the size of chunk i in bytes, ``had`` what is there already; from now on only the planner writes
    to it. Chunks with adjacent numbers are adjacent at every source. ``gateways`` are those of this node's zone, where
    it is in one; ``files`` those that it writes to, where several at once are better.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        had: Bitmap,
        *,
        seed: int | None = None,
        gateways: Gateways | None = None,
        files: Files = NO_FILES,
    ) -> None:
        self.had = had
        self.banned: set[str] = set()
        self._lengths = lengths
        self._peers: dict[str, Peer] = {}
        self._leaving = Leaving()
        self._getters = 0
        self._requests = 0
        self._windows = (Window(), Window())  # of fetches from peers of this zone or none, and from abroad
        self._share = Share.among(1)
        self._fed = 0.0
        self._now = 0.0
        self._times = RunTimes()
        self._zone = Zone(lengths, gateways)
        # its choices spread load, and guard nothing
        self._supply = Supply(lengths, had, self._zone, random.Random(seed), files)  # noqa: S311
        self._missing = self._supply.missing

    @property
    def done(self) -> bool:
        """Whether every chunk is had."""
        return self.had.full

    @property
    def peers(self) -> tuple[str, ...]:
        """The peers that take part, resting ones among them."""
        return tuple(self._peers)

    @property
    def active(self) -> int:
        """How many peers are being fetched from now."""
        return sum(1 for p in self._peers.values() if p.in_flight)

    @property
    def stuck(self) -> bool:
        """Whether nothing is in flight and no peer, resting ones among them, has a chunk that is missing."""
        return not (self.done or self._leaving or self._hopeful)

    @property
    def only_writes(self) -> bool:
        """Whether there is nothing to do but wait for what is being written from peers that are closed."""
        return self._leaving.writing and not (self.done or self._hopeful)

    @property
    def _hopeful(self) -> bool:
        """Whether a peer that takes part is sending, or could send, what is missing."""
        return bool(self._requests) or any(self._supply.useful(p) for p in self._peers.values())

    def handle(self, event: Event) -> list[Action]:
        """Take an event; return what to do now."""
        # The commonest first: of one chunk a node is told some twenty times.
        if isinstance(event, PeerHas):
            peer = self._peers.get(event.peer)
            if peer is None:
                return []
            self._has(peer, event.chunks)
            return self._fill_one(peer)
        if isinstance(event, Granted):
            peer = self._peers.get(event.grant.key)
            self._now = max(self._now, event.now)
            actions = [] if peer is None else self._granted(peer, event.grant)
        elif isinstance(event, (Tick, Fetched, Ending, Failed)):
            self._now = max(self._now, event.now)
            actions = self._tick() if isinstance(event, Tick) else self._moved(event)
        else:
            actions = self._add(event) if isinstance(event, PeerAdded) else self._news(event)
        if self._zone.known:
            self._follow_zone(actions)
        return actions

    def _moved(self, event: Fetched | Ending | Failed) -> list[Action]:
        peer = self._peers.get(event.peer)
        if isinstance(event, Fetched):
            return self._fetched(peer, event)
        if isinstance(event, Failed):
            return self._failed(peer, event)
        actions: list[Action] = []
        if peer is not None:
            self._over(peer, event.run, actions)
            actions += self._open()
        return actions

    def _follow_zone(self, actions: list[Action]) -> None:
        """Do what changes in this node's zone make necessary, and tell who get from this node."""
        claims, election = self._zone.news()
        actions += map(Claims, claims)
        if election:
            self._fed = self._now  # it is given time before the next
        if self._zone.reopens():
            for peer in self._peers.values():
                if peer.abroad:
                    self._supply.reopen(peer)
            self._wake_abroad()
            actions += self._fill(self._peers.values())

    def _tick(self) -> list[Action]:
        self._zone.pass_time(self._now)
        actions = self._cancel_slow()
        for window in self._windows:
            window.pass_slow(self._now)
        if self._requests or not self._missing or not self._fed:
            self._fed = self._now
        actions += self._fill(self._peers.values())
        if self._now - self._fed >= HUNGRY_SECONDS:
            self._zone.hungry()
            actions += self._feed()
        return actions

    def _feed(self) -> list[Action]:
        """Ask one peer for one run, without a grant."""
        actions: list[Action] = []
        ready = [p for p in self._peers.values() if not (p.rests(self._now) or self._closed_off(p))]
        for peer in sorted(ready, key=lambda p: (p.slow, p.distance)):
            if self._fetch(peer, self._pick(peer), actions):
                break
        return actions

    def _leave(self, peer: Peer | None, event: Closed | Released | PeerGone) -> list[Action]:
        """A peer takes part no more, or has let go of what it wrote."""
        if isinstance(event, Released):
            self._released(event)
        elif isinstance(event, Closed):
            self._closed(peer, event)
        else:
            self._gone(peer, event.peer)
        return self._fill(self._peers.values())

    def _closed(self, peer: Peer | None, event: Closed) -> None:
        runs = self._leaving.answered(event.peer)
        if runs is None:
            runs = self._remove(peer) if peer is not None else []
        for run in self._leaving.closed(event.peer, runs, event.writing):
            self._return(run)

    def _released(self, event: Released) -> None:
        let_go = self._leaving.let_go(event.peer, event.run)
        self._supply.arrived(event.run[: event.kept], landed=let_go)
        if let_go:
            self._return(event.run[event.kept :])

    def _gone(self, peer: Peer | None, name: str) -> None:
        runs = self._leaving.gone(name) + (self._remove(peer) if peer is not None else [])
        for run in runs:
            self._return(run)

    def _news(self, event: PeerShared | PeerClaims | Closed | Released | PeerGone) -> list[Action]:
        peer = self._peers.get(event.peer)
        if isinstance(event, (Closed, Released, PeerGone)):
            return self._leave(peer, event)
        if peer is None:
            return []
        if isinstance(event, PeerShared):
            peer.shared = event.shared
        else:
            self._zone.heard(peer.name, event.claim)
        return self._fill_one(peer)

    def _add(self, event: PeerAdded) -> list[Action]:
        if event.peer in self.banned:
            return []
        peer = self._peers.get(event.peer)
        if peer is None:
            origin = event.have.full
            abroad = self._zone.abroad(event.distance)
            peer = self._peers[event.peer] = Peer(event.peer, Bitmap(len(event.have)), event.distance, origin, abroad)
            self._getters += not origin
            self._share = Share.among(len(self._peers))
            self._zone.near(event.peer, event.distance, whole=False)
        peer.shared = event.shared
        peer.grants = event.grants
        peer.connections = event.connections
        self._has(peer, event.have)
        return self._fill_one(peer)

    def _has(self, peer: Peer, chunks: Iterable[int]) -> None:
        self._supply.has(peer, chunks)
        if peer.have.full:
            self._zone.near(peer.name, peer.distance, whole=True)

    def _remove(self, peer: Peer) -> list[range]:
        """A peer takes part no more; the runs that are in flight at it."""
        del self._peers[peer.name]
        self._getters -= not peer.origin
        self._share = Share.among(max(1, len(self._peers)))
        if self._supply.gone(peer):
            self._wake_abroad()
        self._zone.gone(peer.name)
        self._requests -= len(peer.in_flight)
        for run in peer.in_flight.values():
            self._window(peer).release(peer.name, run)
        self._window(peer).forget(peer.name)
        return list(peer.in_flight.values())

    def _wake_abroad(self) -> None:
        """Some chunks may be new again, so that they are to be had from abroad."""
        for peer in self._peers.values():
            if peer.abroad and peer.sated:
                peer.sated = False
                self._window(peer).owe(peer.name)

    def _window(self, peer: Peer) -> Window:
        """What is under way from a peer, and others as far away: the link between zones may make all of it slow."""
        return self._windows[peer.abroad]

    def _closed_off(self, peer: Peer) -> bool:
        """Whether only others of this zone fetch from there."""
        return peer.abroad and not self._zone.mine

    def _fetched(self, peer: Peer | None, event: Fetched) -> list[Action]:
        run = event.run
        began = peer.since.get(run.start, math.inf) if peer else math.inf
        actions: list[Action] = []
        landed = peer is not None and self._land(peer, run, actions)
        self._supply.arrived(run, landed=landed or self._leaving.let_go(event.peer, run))
        if peer is None:  # it was closed meanwhile
            return []
        if landed and began < math.inf:
            self._times.took(self._now - began, abroad=peer.abroad)
            self._window(peer).took(self._now - began)
        self._fed = self._now
        if self._zone.known:
            self._zone.fed()
        peer.brought()
        return actions + self._fill_one(peer)

    def _failed(self, peer: Peer | None, event: Failed) -> list[Action]:
        actions: list[Action] = []
        landed = peer is not None and self._land(peer, event.run, actions)
        self._supply.arrived(event.run[: event.kept], landed=landed)
        if peer is None:
            return []
        if landed:
            self._return(event.run[event.kept :])
        if event.fault is FetchFault.CORRUPT:
            self.banned.add(peer.name)
        if peer.failed(event.fault, self._now):
            self._leaving.drop(peer.name, self._remove(peer))
            actions.append(Drop(peer.name, event.fault is FetchFault.CORRUPT))
        return actions + self._fill(self._peers.values())

    def _land(self, peer: Peer, run: range, actions: list[Action]) -> bool:
        """Whether the run was in flight at this peer; it is no longer. Another may begin where one of before began."""
        if peer.in_flight.get(run.start) != run:
            return False
        del peer.in_flight[run.start]
        peer.since.pop(run.start, None)
        peer.bytes_in_flight -= self._bytes(run)
        self._requests -= 1
        self._over(peer, run, actions)
        return True

    def _over(self, peer: Peer, run: range, actions: list[Action]) -> None:
        """A run that was granted has ended, or nearly so: the peer hears of it once."""
        window = self._window(peer)
        window.release(peer.name, run)
        number = peer.granted.pop(run, None)
        if number is not None:
            full = window.full or self._waits(peer)
            if full:
                window.owe(peer.name)
            actions.append(Done(peer.name, number, window.under_way, full))

    def _return(self, run: Iterable[int]) -> None:
        """These are missing again, unless somebody else brought them."""
        for chunk in run:
            if chunk not in self.had:
                self._supply.put_back(chunk, self._peers.values())
                for peer in self._peers.values():
                    if peer.sated and chunk in peer.have:
                        peer.sated = False
                        self._window(peer).owe(peer.name)

    def _cancel_slow(self) -> list[Action]:
        """Take runs that take too long away from peers, where another could bring them."""
        limits = self._times.limits(last=not self._missing)
        actions: list[Action] = []
        for peer in self._peers.values():
            patience = limits[peer.abroad]
            for start, began in peer.since.items():
                if self._now - began > patience and self._another(peer, peer.in_flight[start]):
                    peer.since[start] = math.inf
                    actions.append(Cancel(peer.name, peer.in_flight[start]))
        return actions

    def _another(self, peer: Peer, run: range) -> bool:
        """Whether a peer that is not known to be slow has a run as well."""
        others = (p for p in self._peers.values() if p is not peer and not p.slow and p.not_before <= self._now)
        return any(self._supply.may_bring(other, run) for other in others)

    def _bytes(self, run: range) -> int:
        return sum(self._lengths[run.start : run.stop])

    def _fill(self, peers: Iterable[Peer]) -> list[Action]:
        """Hand missing chunks to these peers until their windows are full: in turn, the slow last, the near first.

        Those that grant hear where there is room.
        """
        actions: list[Action] = []
        if not self._missing:
            return actions
        share = self._share
        ready = [p for p in peers if not p.granting and p.room(share) and not self._waits(p)]
        if len(ready) > 1:
            ready.sort(key=lambda p: (p.slow, p.distance, p.bytes_in_flight))
        while ready:
            ready = [p for p in ready if self._fetch(p, self._pick(p), actions) and p.room(share)]
        return actions + self._open()

    def _fill_one(self, peer: Peer) -> list[Action]:
        """As ``_fill``, for one."""
        actions: list[Action] = []
        if not self._missing:
            return actions
        if not peer.granting and not self._waits(peer):
            while peer.room(self._share) and self._fetch(peer, self._pick(peer), actions):
                pass
        return actions + self._open()

    def _open(self) -> list[Action]:
        """Tell those that were declined that there is room."""
        actions: list[Action] = []
        for window in self._windows:
            if not window.owes:
                continue
            for name in window.owed(lambda name: self._waits(self._peers[name])):
                window.forget(name)
                if self._peers[name].grants:  # else it came again, as an earlier version
                    actions.append(Opened(name, window.under_way))
        return actions

    def _waits(self, peer: Peer) -> bool:
        """Whether nothing is to be fetched from a peer now: it rests, or is slow, and another is idle that is not.

        Else two that are slow would be given a run in turn, and it would be taken away from each, for ever.
        """
        if self._closed_off(peer):
            return True
        if not peer.slow:
            return peer.rests(self._now)
        others = (p for p in self._peers.values() if not (p.slow or p.in_flight or p.rests(self._now)))
        return peer.rests(self._now) or any(self._supply.may_use(other) for other in others)

    def _granted(self, peer: Peer, grant: Grant) -> list[Action]:
        """Take a grant, or say why not."""
        actions: list[Action] = []
        window = self._window(peer)
        window.size = grant.window
        full = window.full or self._waits(peer)
        if not full:
            run = self._missing.take_new(grant.run) if grant.run is not None and not peer.abroad else range(0)
            run = run or self._pick(peer)
            if self._fetch(peer, run, actions, grant.lead):
                peer.granted[run] = grant.number
                window.take(peer.name, run, self._now)
                return actions
            peer.sated = True
        else:
            window.owe(peer.name)
        actions.append(Declined(peer.name, grant.number, window.under_way, full))
        return actions if full else actions + self._open()

    def _pick(self, peer: Peer) -> range:
        """Take what is to be asked of a peer next."""
        if self._getters or peer.shared:
            return self._supply.pick(peer, RUN_BYTES)
        if not self._supply.files:
            return self._supply.pick(peer, self._times.run_bytes)
        under_way = [run for each in self._peers.values() for run in each.in_flight.values()]
        return self._supply.pick(peer, self._times.run_bytes, under_way)

    def _fetch(self, peer: Peer, run: range, actions: list[Action], lead: float = 0.0) -> bool:
        """Ask a peer for a run that was taken; False where there is none."""
        if not run:
            return False
        peer.in_flight[run.start] = run
        peer.since[run.start] = self._now
        peer.bytes_in_flight += self._bytes(run)
        self._requests += 1
        actions.append(Fetch(peer.name, run, lead))
        return True
