"""A driver of a planner that plays the peers, and says at each action what must hold."""

from __future__ import annotations

from collections.abc import Sequence

from p2pstore.swarm.events import (
    FEW_CONNECTIONS,
    Action,
    Cancel,
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
    PeerGone,
    PeerHas,
    PeerShared,
    Released,
    Tick,
)
from p2pstore.swarm.granter import Grant
from p2pstore.swarm.peer import BACKOFF_SECONDS, FAULTS_ALLOWED, MAX_REQUESTS, WINDOW_BYTES, WINDOW_REQUESTS
from p2pstore.swarm.planner import HUNGRY_SECONDS, Planner
from p2pstore.swarm.rarity import RUN_CHUNKS
from p2pstore.swarm.run_times import LONG_RUN_BYTES
from tests.p2pstore.swarm.planners import bits


class Driver:
    """Feeds a planner, carries its actions in mind, and checks each of them when it comes."""

    def __init__(self, lengths: Sequence[int], had: Sequence[int], seed: int) -> None:
        self.lengths = lengths
        self.had = set(had)
        self.planner = Planner(lengths, bits(len(lengths), had), seed=seed)
        self.have: dict[str, set[int]] = {}
        self.in_flight: dict[str, list[range]] = {}
        self.connections: dict[str, int] = {}
        self.dropped: dict[str, list[range]] = {}
        self.writing: list[tuple[str, range]] = []
        self.origins: set[str] = set()
        self.slow: set[str] = set()
        self.cancelled: set[tuple[str, range]] = set()
        self.shared: set[str] = set()
        self.grants: set[str] = set()
        self.number = 0
        self.given: dict[tuple[str, int], range | None] = {}  # grants that were neither declined nor done: their runs
        self.asking: tuple[str, int] | None = None  # the grant that is being answered
        self.unheard: set[str] = set()  # declined as having no room, and not told since that there is
        self.resting: dict[str, float] = {}
        self.faults: dict[str, int] = {}
        self.banned: set[str] = set()
        self.now = 0.0

    def send(self, event: Event) -> list[Action]:
        actions = self.planner.handle(event)
        for action in actions:
            if isinstance(action, Fetch):
                self.check_fetch(action)
                self.in_flight[action.peer].append(action.run)
            elif isinstance(action, Opened):
                assert action.peer in self.grants
                self.unheard.discard(action.peer)
            elif isinstance(action, (Declined, Done)):
                self.check_word(action)
            elif isinstance(action, Cancel):
                self.check_cancel(action)
            else:
                self.check_drop(action)
        return actions

    def check_fetch(self, action: Fetch) -> None:
        peer, run = action.peer, action.run
        assert peer in self.have, "only a peer that is there is asked"
        assert peer not in self.banned, "a banned peer is never asked again"
        assert self.resting.get(peer, 0.0) <= self.now, "a peer rests after a fault"
        assert len(run) > 0
        assert self.have[peer].issuperset(run), "a peer is asked for what it has"
        assert self.had.isdisjoint(run), "nothing is fetched after it is had"
        assert self.written.isdisjoint(run), "two never write one place: what a closed peer left must be released first"
        assert self.flying.isdisjoint(run), "nothing is fetched twice at once"
        sizes = [self.lengths[c] for c in run]
        assert len(run) == 1 or sum(sizes) <= LONG_RUN_BYTES, "a run of several chunks is bounded"
        assert len(run) <= RUN_CHUNKS
        flying = self.in_flight[peer]
        if peer in self.slow:
            assert not flying, "a slow peer has one request at a time"
        if self.asking is not None:
            assert self.asking[0] == peer, "a grant is for who gave it"
            self.given[self.asking] = run
            self.asking = None
        elif peer not in self.granting:
            there = sum(self.lengths[c] for r in flying for c in r)
            share = WINDOW_BYTES // len(self.have)
            assert len(flying) < self.window(peer) or (len(flying) < MAX_REQUESTS and there < share), "its window"
        else:
            assert self.now - self.planner._fed >= HUNGRY_SECONDS, "what grants is asked without only by who is hungry"

    def check_word(self, word: Declined | Done) -> None:
        grant = (word.peer, word.number)
        assert grant in self.given, "a grant is answered once"
        run = self.given.pop(grant)
        if isinstance(word, Done):
            assert run is not None, "only what was taken is done"
        else:
            assert grant == self.asking, "it is declined at once, or taken"
            self.asking = None
        if word.full:
            self.unheard.add(word.peer)

    def check_cancel(self, action: Cancel) -> None:
        assert action.run in self.in_flight[action.peer], "only what is in flight is cancelled"
        assert (action.peer, action.run) not in self.cancelled, "and only once"
        others = set(self.have) - {action.peer} - self.slow
        assert any(self.have[p].issuperset(action.run) for p in others), "another has what is cancelled"
        self.cancelled.add((action.peer, action.run))

    def check_drop(self, action: Drop) -> None:
        assert action.banned == (action.peer in self.banned), "banned for wrong bytes, and for nothing else"
        self.dropped.setdefault(action.peer, []).extend(self.in_flight[action.peer])
        self.forget(action.peer)

    @property
    def flying(self) -> set[int]:
        """Chunks that were asked of somebody, and that nobody else may bring."""
        return {c for runs in self.in_flight.values() for run in runs for c in run} | self.written

    @property
    def written(self) -> set[int]:
        """Chunks that may still be written by who takes part no more."""
        dropped = {c for runs in self.dropped.values() for run in runs for c in run}
        return dropped | {c for _, run in self.writing for c in run}

    def forget(self, peer: str) -> None:
        for each in (self.have, self.in_flight, self.resting, self.faults):
            each.pop(peer, None)
        for peers in (self.origins, self.slow, self.shared, self.grants, self.unheard):
            peers.discard(peer)
        self.cancelled = {(p, r) for p, r in self.cancelled if p != peer}
        self.given = {(p, n): run for (p, n), run in self.given.items() if p != peer}

    def window(self, peer: str) -> int:
        connections = self.connections[peer]
        return min(2 * connections, max(1, connections - 1, WINDOW_REQUESTS // len(self.have)))

    @property
    def granting(self) -> set[str]:
        """Those that say themselves when something is to be fetched from them."""
        return {p for p in self.grants if p in self.shared or p not in self.origins}

    def add(
        self,
        peer: str,
        chunks: Sequence[int],
        distance: int = 2,
        *,
        shared: bool = False,
        grants: bool = False,
        connections: int = FEW_CONNECTIONS,
    ) -> None:
        if peer not in self.banned:
            if peer not in self.have and len(chunks) == len(self.lengths):
                self.origins.add(peer)
            self.have.setdefault(peer, set()).update(chunks)
            self.in_flight.setdefault(peer, [])
            self.connections[peer] = connections
            self.note_shared(peer, shared)
            (self.grants.add if grants else self.grants.discard)(peer)
        self.send(PeerAdded(peer, bits(len(self.lengths), chunks), distance, shared, grants, connections))

    def note_shared(self, peer: str, shared: bool) -> None:
        if shared and peer in self.have:
            self.shared.add(peer)
        else:
            self.shared.discard(peer)

    def gets(self, peer: str, chunks: Sequence[int]) -> None:
        if peer in self.have:
            self.have[peer].update(chunks)
        self.send(PeerHas(peer, chunks))

    def share(self, peer: str, shared: bool) -> None:
        self.note_shared(peer, shared)
        self.send(PeerShared(peer, shared))

    def grant(self, peer: str, run: range | None = None) -> None:
        """A peer grants a fetch: it is taken or declined at once, never both and never neither."""
        if peer not in self.grants:
            return
        self.number += 1
        self.asking = (peer, self.number)
        self.given[self.asking] = None
        self.send(Granted(Grant(peer, self.number, run), self.now))
        assert self.asking is None, "a grant is answered"

    def ends(self, peer: str, run: range) -> None:
        """All of a run but its lead has come."""
        self.send(Ending(peer, run, self.now))

    def leave(self, peer: str) -> None:
        self.forget(peer)
        self.dropped.pop(peer, None)
        self.writing = [(p, r) for p, r in self.writing if p != peer]
        self.send(PeerGone(peer))

    def close(self, peer: str, writing: Sequence[range]) -> None:
        """Tell a peer to stop, one that was dropped if it has not been told; these runs of it are being written."""
        if peer in self.dropped:
            del self.dropped[peer]
        else:
            self.forget(peer)
        self.writing += [(peer, run) for run in writing]
        self.send(Closed(peer, writing))

    def closable(self, peer: str) -> list[range]:
        """What may still be written when a peer is told to stop."""
        return self.dropped.get(peer, self.in_flight.get(peer, []))

    def release(self, peer: str, run: range, kept: int) -> None:
        self.writing.remove((peer, run))
        self.had.update(run[:kept])
        self.send(Released(peer, run, kept))

    def deliver(self, peer: str, run: range) -> None:
        if run in self.in_flight.get(peer, []):
            self.in_flight[peer].remove(run)
        if (peer, run) in self.writing:
            self.writing.remove((peer, run))
        self.had.update(run)
        self.faults.pop(peer, None)
        self.slow.discard(peer)
        self.cancelled.discard((peer, run))
        self.send(Fetched(peer, run, self.now))

    def fail(self, peer: str, run: range, fault: FetchFault, kept: int) -> None:
        self.in_flight[peer].remove(run)
        self.had.update(run[:kept])
        if fault is FetchFault.CORRUPT:
            self.banned.add(peer)
        elif fault is FetchFault.SLOW:
            self.slow.add(peer)
            self.resting[peer] = self.now + BACKOFF_SECONDS
        elif fault is FetchFault.LOST:
            self.faults[peer] = self.faults.get(peer, 0) + 1
            self.resting[peer] = self.now + BACKOFF_SECONDS * 2 ** (self.faults[peer] - 1)
        count = self.faults.get(peer, 0)
        actions = self.send(Failed(peer, run, fault, self.now, kept))
        dropped = any(isinstance(a, Drop) for a in actions)
        assert dropped == (
            fault in {FetchFault.CORRUPT, FetchFault.GONE} or (fault is FetchFault.LOST and count > FAULTS_ALLOWED)
        )

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.send(Tick(self.now))

    def check(self) -> None:
        planner = self.planner
        every = set(range(len(self.lengths)))
        assert set(planner.had) == self.had, "what arrived is had, and nothing else is"
        assert planner.done == (self.had == every)
        assert set(planner.peers) == set(self.have)
        assert planner.active == sum(1 for runs in self.in_flight.values() if runs)
        missing = every - self.had - self.flying
        wanted = {p for p, have in self.have.items() if have & missing}
        assert planner.stuck == (not planner.done and not self.flying and not wanted), "stuck only without hope"
        taken = {(p, run) for (p, _), run in self.given.items()}
        assert taken <= {(p, run) for p, runs in self.in_flight.items() for run in runs}, "no grant is kept for nothing"
        for peer in wanted - self.granting:
            if self.resting.get(peer, 0.0) <= self.now:
                runs = self.in_flight[peer]
                share = WINDOW_BYTES // len(self.have)
                full = sum(self.lengths[c] for run in runs for c in run) >= share or len(runs) >= MAX_REQUESTS
                busy = (len(runs) >= self.window(peer) and full) or (peer in self.slow and runs)
                begins = peer in self.origins and runs and not planner._peers[peer].delivered
                others = {
                    p for p in wanted - self.slow if not self.in_flight[p] and self.resting.get(p, 0.0) <= self.now
                }
                leaves = peer in self.slow and others
                assert busy or begins or leaves, "a peer with something missing is kept busy"

    def finish(self) -> None:
        """With one honest peer that has everything, the pull ends: no chunk is ever lost."""
        for peer in list(self.dropped):
            self.close(peer, self.dropped[peer][:1])
        for peer, run in list(self.writing):
            self.release(peer, run, 0)
        self.add("honest", range(len(self.lengths)))
        for _ in range(4 * len(self.lengths) + 8):
            if not any(self.in_flight.values()) and not self.planner.done:
                self.tick(100.0)
            for _ in range(len(self.have)):  # it is told to one after the other
                self.tick(0.0)
            if not self.planner._windows[0].full:
                ready = {p for p in self.unheard if self.resting.get(p, 0.0) <= self.now}
                assert not ready - self.slow or not self.planner._missing, "who was declined hears that there is room"
            for peer, runs in list(self.in_flight.items()):
                for run in list(runs):
                    self.deliver(peer, run)
            if self.planner.done:
                break
            self.tick(100.0)
        self.check()
        assert self.planner.done
