"""The planner: which chunk from which peer. Pure: events in, actions out; no clock, no socket, no thread of its own.

One owner feeds it events and carries out the actions that come back. Time is whatever the owner's clock says (seconds,
never going back), so the same object runs in production and in a simulator.

A chunk is *missing*, *in flight* at one peer, or *had*; only a verified chunk is had, so that chunks go from absent to
correct and never back. Rarest first, with random ties: what few have is fetched, and so spread, before what all have.
Chunks that are small and adjacent are fetched in one run, so that a thousand tiny files cost tens of requests. A peer
has a bounded number of requests in flight. A fault costs the peer's own chunks only: they are missing again, and others
bring them. Faults of the peer's making end in a backoff that doubles, wrong bytes in a ban.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from p2pstore.bitmap import Bitmap

MAX_REQUESTS = 64
"""Requests in flight at one peer, however small."""

WINDOW_REQUESTS = 4
"""Requests in flight at one peer, however large: two connections with one on the wire and one to follow."""

WINDOW_BYTES = 8 << 20
"""Between the two, requests are sent as long as fewer bytes than this are in flight at the peer."""

RUN_BYTES = 1 << 20
"""Adjacent chunks are fetched as one request while together they stay below this."""

RUN_CHUNKS = 1024
"""And while they are no more than this."""

FAULTS_ALLOWED = 4
"""Faults in a row after which a peer is dropped for good; a fetched chunk forgives them."""

BACKOFF_SECONDS = 0.5
"""After a first fault; each further one in a row doubles it."""


class Fault(Enum):
    """Why a fetch failed, as far as it matters here."""

    LOST = "lost"
    """The connection broke, stalled or was refused: try again later."""

    CORRUPT = "corrupt"
    """The bytes did not match their hash: never again."""

    UNTRIED = "untried"
    """It was never sent, or lost with another's fault: not counted."""

    GONE = "gone"
    """The peer no longer serves the object: not before it is added anew."""


@dataclass(frozen=True)
class PeerAdded:
    """A peer is there. ``distance``: 0 this host, 1 this zone, 2 elsewhere; nearer ones are asked first."""

    peer: str
    have: Bitmap
    distance: int = 2


@dataclass(frozen=True)
class PeerHas:
    """A peer has more chunks."""

    peer: str
    chunks: Sequence[int]


@dataclass(frozen=True)
class PeerGone:
    """A peer left; whatever it was sending is lost."""

    peer: str


@dataclass(frozen=True)
class Fetched:
    """A run arrived, and every hash matched."""

    peer: str
    run: range


@dataclass(frozen=True)
class Failed:
    """A run did not arrive; the first ``kept`` chunks of it did, and matched."""

    peer: str
    run: range
    fault: Fault
    now: float
    kept: int = 0


@dataclass(frozen=True)
class Tick:
    """Time went on."""

    now: float


Event = PeerAdded | PeerHas | PeerGone | Fetched | Failed | Tick


@dataclass(frozen=True)
class Fetch:
    """Ask a peer for a run of adjacent chunks."""

    peer: str
    run: range


@dataclass(frozen=True)
class Drop:
    """Do not talk to the peer any more; ``banned`` when it sent wrong bytes."""

    peer: str
    banned: bool


Action = Fetch | Drop


@dataclass
class _Peer:
    name: str
    have: Bitmap
    distance: int
    in_flight: dict[int, range] = field(default_factory=dict)
    bytes_in_flight: int = 0
    faults: int = 0
    not_before: float = 0.0


class Planner:
    """Plans one pull.

    ``lengths[i]`` is the size of chunk i in bytes, ``had`` what is there already; from now on only the planner writes
    to it. Chunks with adjacent numbers are adjacent at every source.
    """

    def __init__(self, lengths: Sequence[int], had: Bitmap, *, seed: int | None = None) -> None:
        self.had = had
        self.banned: set[str] = set()
        self._lengths = lengths
        self._random = random.Random(seed)  # noqa: S311 - spreads load, guards nothing
        self._peers: dict[str, _Peer] = {}
        self._missing = _ByRarity(had.missing(), self._random)
        self._now = 0.0

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
        return not self.done and not any(p.in_flight or self._useful(p) for p in self._peers.values())

    def handle(self, event: Event) -> list[Action]:
        """Take an event; return what to do now."""
        actions: list[Action] = []
        if isinstance(event, Tick):
            self._now = max(self._now, event.now)
        elif isinstance(event, PeerAdded):
            self._add(event)
        elif isinstance(event, Fetched):
            self._arrived(self._peers.get(event.peer), event.run)
        elif isinstance(event, Failed):
            actions += self._failed(self._peers.get(event.peer), event)
        elif event.peer in self._peers:
            peer = self._peers[event.peer]
            if isinstance(event, PeerHas):
                fresh = [c for c in event.chunks if peer.have.add(c)]
                self._missing.seen(fresh)
            else:
                self._remove(peer)
        return actions + self._fill()

    def _add(self, event: PeerAdded) -> None:
        if event.peer in self.banned:
            return
        known = self._peers.get(event.peer)
        if known is not None:
            fresh = [c for c in event.have if known.have.add(c)]
            self._missing.seen(fresh)
            return
        self._peers[event.peer] = _Peer(event.peer, event.have, event.distance)
        self._missing.seen(event.have)

    def _remove(self, peer: _Peer) -> None:
        del self._peers[peer.name]
        self._missing.unseen(peer.have)
        for run in peer.in_flight.values():
            self._return(run)

    def _arrived(self, peer: _Peer | None, run: range) -> None:
        """A run is there. Its peer may have been given up meanwhile, its chunks be missing again or asked of others."""
        if peer is not None:
            self._land(peer, run)
            peer.faults = 0
        self._have(run)

    def _have(self, run: range) -> None:
        for chunk in run:
            self._missing.discard(chunk)
        self.had.update(run)

    def _failed(self, peer: _Peer | None, event: Failed) -> list[Action]:
        self._now = max(self._now, event.now)
        self._have(event.run[: event.kept])
        if peer is None:
            return []
        if self._land(peer, event.run):
            self._return(event.run[event.kept :])
        if event.fault is Fault.UNTRIED:
            return []
        peer.faults += 1
        if event.fault is Fault.CORRUPT:
            self.banned.add(peer.name)
        if event.fault is not Fault.LOST or peer.faults > FAULTS_ALLOWED:
            self._remove(peer)
            return [Drop(peer.name, event.fault is Fault.CORRUPT)]
        peer.not_before = self._now + BACKOFF_SECONDS * 2 ** (peer.faults - 1)
        return []

    def _land(self, peer: _Peer, run: range) -> bool:
        """Whether the run was in flight at this peer; it is no longer."""
        if peer.in_flight.get(run.start) != run:
            return False
        del peer.in_flight[run.start]
        peer.bytes_in_flight -= self._bytes(run)
        return True

    def _return(self, run: Iterable[int]) -> None:
        for chunk in run:
            if chunk not in self.had:
                self._missing.put_back(chunk)

    def _bytes(self, run: range) -> int:
        return sum(self._lengths[run.start : run.stop])

    def _useful(self, peer: _Peer) -> bool:
        return self._missing.any_of(peer.have)

    def _fill(self) -> list[Action]:
        """Hand out missing chunks until every peer's window is full, one each in turn, the nearest peers first."""
        actions: list[Action] = []
        ready = [p for p in self._peers.values() if p.not_before <= self._now and self._room(p)]
        ready.sort(key=lambda p: (p.distance, p.bytes_in_flight))
        while ready and self._missing:
            still = []
            for peer in ready:
                run = self._missing.take(peer.have, self._lengths)
                if run is None:
                    continue
                peer.in_flight[run.start] = run
                peer.bytes_in_flight += self._bytes(run)
                actions.append(Fetch(peer.name, run))
                if self._room(peer):
                    still.append(peer)
            ready = still
        return actions

    @staticmethod
    def _room(peer: _Peer) -> bool:
        requests = len(peer.in_flight)
        return requests < WINDOW_REQUESTS or (requests < MAX_REQUESTS and peer.bytes_in_flight < WINDOW_BYTES)


class _ByRarity:
    """The missing chunks that nobody fetches now, by how many peers have them.

    A list for each count, with every chunk's place in it, so that a chunk moves between lists in constant time and the
    pick is from the first list that is not empty.
    """

    def __init__(self, missing: Iterable[int], rng: random.Random) -> None:
        self._random = rng
        self._seen: dict[int, int] = {}
        self._place: dict[int, int] = {}
        self._lists: list[list[int]] = [list(missing)]
        for place, chunk in enumerate(self._lists[0]):
            self._place[chunk] = place

    def __bool__(self) -> bool:
        return bool(self._place)

    def seen(self, chunks: Iterable[int]) -> None:
        """One more peer has these."""
        for chunk in chunks:
            self._move(chunk, 1)

    def unseen(self, chunks: Iterable[int]) -> None:
        """One peer fewer has these."""
        for chunk in chunks:
            self._move(chunk, -1)

    def put_back(self, chunk: int) -> None:
        """A chunk that was taken is missing again."""
        if chunk not in self._place:
            self._insert(chunk)

    def discard(self, chunk: int) -> None:
        """A chunk came although it was to be fetched."""
        if chunk in self._place:
            self._extract(chunk)

    def any_of(self, have: Bitmap) -> bool:
        """Whether a peer that has ``have`` has something that is missing."""
        if have.full:
            return bool(self._place)
        return any(chunk in have for chunk in self._place)

    def take(self, have: Bitmap, lengths: Sequence[int]) -> range | None:
        """The rarest chunk that is in ``have``, with the missing ones that follow it while the run stays small."""
        for chunks in self._lists[1:]:
            if not chunks:
                continue
            start = self._random.randrange(len(chunks))
            for step in range(len(chunks)):
                chunk = chunks[(start + step) % len(chunks)]
                if chunk in have:
                    return self._take_run(chunk, have, lengths)
        return None

    def _take_run(self, first: int, have: Bitmap, lengths: Sequence[int]) -> range:
        total = lengths[first]
        while first - 1 in self._place and first - 1 in have and total + lengths[first - 1] <= RUN_BYTES // 2:
            first -= 1
            total += lengths[first]
        stop = first
        total = 0
        while stop in self._place and stop in have and stop - first < RUN_CHUNKS:
            total += lengths[stop]
            if total > RUN_BYTES and stop > first:
                break
            self._extract(stop)
            stop += 1
        return range(first, stop)

    def _move(self, chunk: int, by: int) -> None:
        there = chunk in self._place
        if there:
            self._extract(chunk)
        self._seen[chunk] = self._seen.get(chunk, 0) + by
        if there:
            self._insert(chunk)

    def _insert(self, chunk: int) -> None:
        rarity = self._seen.get(chunk, 0)
        while len(self._lists) <= rarity:
            self._lists.append([])
        self._place[chunk] = len(self._lists[rarity])
        self._lists[rarity].append(chunk)

    def _extract(self, chunk: int) -> None:
        chunks = self._lists[self._seen.get(chunk, 0)]
        place = self._place.pop(chunk)
        last = chunks.pop()
        if last != chunk:
            chunks[place] = last
            self._place[last] = place
