"""Whatever peers do, every chunk is fetched by somebody who has it, and no more often than needed.

A driver plays the peers: they come, go, get more chunks, deliver, break off in the middle, lie and refuse, in any order
that hypothesis thinks of. What must hold is said in one sentence at each check.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.events import (
    Action,
    Ask,
    Cancel,
    Closed,
    Drop,
    Event,
    Failed,
    Fetch,
    Fetched,
    FetchFault,
    Offered,
    PeerAdded,
    PeerGone,
    PeerHas,
    PeerShared,
    Released,
    Tick,
)
from p2pstore.swarm.planner import (
    BACKOFF_SECONDS,
    FAULTS_ALLOWED,
    HUNGRY_SECONDS,
    LONG_RUN_BYTES,
    MAX_DONE,
    MAX_REQUESTS,
    MIN_PATIENCE,
    MOST_EACH,
    OFFERS,
    QUICK_RUN_SECONDS,
    SLOW_RUN_SECONDS,
    WINDOW_BYTES,
    WINDOW_REQUESTS,
    Planner,
)
from p2pstore.swarm.rarity import RUN_BYTES, RUN_CHUNKS

KIB = 1 << 10
MIB = 1 << 20
PEERS = [f"peer {n}" for n in range(5)]
SIZES = st.sampled_from([1, 100 * KIB, 400 * KIB, MIB, 3 * MIB, 8 * MIB])


def bits(size: int, chunks: Sequence[int]) -> Bitmap:
    made = Bitmap(size)
    made.update(chunks)
    return made


class Driver:
    """Feeds a planner, carries its actions in mind, and checks each of them when it comes."""

    def __init__(self, lengths: Sequence[int], had: Sequence[int], seed: int) -> None:
        self.lengths = lengths
        self.had = set(had)
        self.planner = Planner(lengths, bits(len(lengths), had), seed=seed)
        self.have: dict[str, set[int]] = {}
        self.in_flight: dict[str, list[range]] = {}
        self.dropped: dict[str, list[range]] = {}
        self.writing: list[tuple[str, range]] = []
        self.origins: set[str] = set()
        self.slow: set[str] = set()
        self.cancelled: set[tuple[str, range]] = set()
        self.shared: set[str] = set()
        self.over: set[str] = set()
        self.offers: dict[str, list[range]] = {}
        self.asked: set[str] = set()
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
            elif isinstance(action, Ask):
                self.check_ask(action)
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
        there = sum(self.lengths[c] for r in flying for c in r)
        share = WINDOW_BYTES // len(self.have)
        if peer in self.slow:
            assert not flying, "a slow peer has one request at a time"
        assert len(flying) < self.window or (len(flying) < MAX_REQUESTS and there < share), "its window"
        if peer in self.spared:
            spread = {c for p in self.getters for c in self.have[p]}
            offered = spread.isdisjoint(run) and any(set(run) <= set(o) for o in self.offers.get(peer, []))
            spreads = peer in self.over and spread.issuperset(run)
            assert offered or spreads, "a shared origin is asked for what it offered, or when done for what others have"

    def check_ask(self, action: Ask) -> None:
        assert action.peer in self.origins & self.shared - self.over, "a shared origin is asked for offers"
        assert action.peer not in self.asked, "and again when it has answered"
        assert 0 < action.count <= OFFERS
        assert len(action.done) <= MAX_DONE
        self.asked.add(action.peer)

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
        for each in (self.have, self.in_flight, self.resting, self.faults, self.offers):
            each.pop(peer, None)
        for peers in (self.origins, self.slow, self.shared, self.over, self.asked):
            peers.discard(peer)
        self.cancelled = {(p, r) for p, r in self.cancelled if p != peer}

    @property
    def window(self) -> int:
        return min(MOST_EACH, max(1, WINDOW_REQUESTS // len(self.have)))

    @property
    def spared(self) -> set[str]:
        """Shared origins, unless the node is hungry."""
        hungry = self.now - self.planner._fed >= HUNGRY_SECONDS
        return set() if hungry else self.origins & self.shared

    @property
    def getters(self) -> set[str]:
        return set(self.have) - self.origins

    def add(self, peer: str, chunks: Sequence[int], distance: int = 2, *, shared: bool = False) -> None:
        if peer not in self.banned:
            if peer not in self.have and len(chunks) == len(self.lengths):
                self.origins.add(peer)
            self.have.setdefault(peer, set()).update(chunks)
            self.in_flight.setdefault(peer, [])
            self.note_shared(peer, shared)
        self.send(PeerAdded(peer, bits(len(self.lengths), chunks), distance, shared))

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

    def offer(self, peer: str, runs: Sequence[range], over: bool) -> None:
        if peer in self.have:
            self.offers.setdefault(peer, []).extend(runs)
            self.asked.discard(peer)
            (self.over.add if over else self.over.discard)(peer)
        self.send(Offered(peer, runs, over))

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
        for peer in wanted:
            if self.resting.get(peer, 0.0) <= self.now:
                runs = self.in_flight[peer]
                share = WINDOW_BYTES // len(self.have)
                full = sum(self.lengths[c] for run in runs for c in run) >= share or len(runs) >= MAX_REQUESTS
                busy = (len(runs) >= self.window and full) or (peer in self.slow and runs)
                assert busy or peer in self.spared, "a peer with something missing is kept busy"

    def finish(self) -> None:
        """With one honest peer that has everything, the pull ends: no chunk is ever lost."""
        for peer in list(self.dropped):
            self.close(peer, self.dropped[peer][:1])
        for peer, run in list(self.writing):
            self.release(peer, run, 0)
        self.add("honest", range(len(self.lengths)))
        for _ in range(4 * len(self.lengths) + 8):
            for peer, runs in list(self.in_flight.items()):
                for run in list(runs):
                    self.deliver(peer, run)
            if self.planner.done:
                break
            self.tick(100.0)
        self.check()
        assert self.planner.done


class AnyStory(RuleBasedStateMachine):
    """Peers at their worst."""

    @initialize(lengths=st.lists(SIZES, min_size=1, max_size=40), data=st.data(), seed=st.integers(0, 9))
    def begin(self, lengths: list[int], data: st.DataObject, seed: int) -> None:
        self.size = len(lengths)
        self.driver = Driver(lengths, data.draw(self.chunks()), seed)

    def chunks(self) -> st.SearchStrategy[list[int]]:
        return st.just(list(range(self.size))) | st.lists(st.integers(0, self.size - 1), max_size=8, unique=True)

    @rule(peer=st.sampled_from(PEERS), distance=st.integers(0, 2), shared=st.booleans(), data=st.data())
    def comes(self, peer: str, distance: int, shared: bool, data: st.DataObject) -> None:
        self.driver.add(peer, data.draw(self.chunks()), distance, shared=shared)

    @rule(peer=st.sampled_from(PEERS), data=st.data())
    def gets_more(self, peer: str, data: st.DataObject) -> None:
        self.driver.gets(peer, data.draw(self.chunks()))

    @rule(peer=st.sampled_from(PEERS), shared=st.booleans())
    def is_shared(self, peer: str, shared: bool) -> None:
        self.driver.share(peer, shared)

    @rule(peer=st.sampled_from(PEERS), over=st.booleans(), data=st.data())
    def offers(self, peer: str, over: bool, data: st.DataObject) -> None:
        first = st.integers(0, self.size - 1)
        run = first.flatmap(lambda f: st.integers(f + 1, self.size).map(lambda stop: range(f, stop)))
        self.driver.offer(peer, data.draw(st.lists(run, max_size=3)), over)

    @rule(peer=st.sampled_from(PEERS))
    def goes(self, peer: str) -> None:
        self.driver.leave(peer)

    @rule(peer=st.sampled_from(PEERS), data=st.data())
    def is_closed(self, peer: str, data: st.DataObject) -> None:
        runs = self.driver.closable(peer)
        self.driver.close(peer, [run for run in runs if data.draw(st.booleans())])

    @precondition(lambda self: self.driver.writing)
    @rule(data=st.data())
    def releases(self, data: st.DataObject) -> None:
        peer, run = data.draw(st.sampled_from(self.driver.writing))
        self.driver.release(peer, run, data.draw(st.integers(0, len(run))))

    @precondition(lambda self: self.driver.writing)
    @rule(data=st.data())
    def delivers_after_it_was_closed(self, data: st.DataObject) -> None:
        self.driver.deliver(*data.draw(st.sampled_from(self.driver.writing)))

    def one_in_flight(self, data: st.DataObject) -> tuple[str, range]:
        flights = [(peer, run) for peer, runs in sorted(self.driver.in_flight.items()) for run in runs]
        return data.draw(st.sampled_from(flights))

    @precondition(lambda self: any(self.driver.in_flight.values()))
    @rule(data=st.data())
    def delivers(self, data: st.DataObject) -> None:
        self.driver.deliver(*self.one_in_flight(data))

    @precondition(lambda self: any(self.driver.in_flight.values()))
    @rule(data=st.data(), fault=st.sampled_from(FetchFault))
    def fails(self, data: st.DataObject, fault: FetchFault) -> None:
        peer, run = self.one_in_flight(data)
        kept = 0 if fault is FetchFault.UNTRIED else data.draw(st.integers(0, len(run) - 1))
        self.driver.fail(peer, run, fault, kept)

    @precondition(lambda self: any(self.driver.in_flight.values()))
    @rule(data=st.data())
    def delivers_after_it_was_given_up(self, data: st.DataObject) -> None:
        peer, run = self.one_in_flight(data)
        self.driver.leave(peer)
        taken = self.driver.flying & set(run)
        if not taken:  # else it is on its way from another, and comes twice
            self.driver.deliver(peer, run)

    @rule(seconds=st.sampled_from([0.0, 0.3, 0.5, 2.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.driver.tick(seconds)

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "driver"):
            self.driver.check()

    def teardown(self) -> None:
        if hasattr(self, "driver"):
            self.driver.finish()


TestAnyStory = AnyStory.TestCase
TestAnyStory.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.lists(SIZES, max_size=60), st.integers(0, 99), st.floats(0, 0.6))
@settings(deadline=None)
def test_a_random_swarm_finishes(lengths: list[int], seed: int, trouble: float) -> None:
    rng = random.Random(seed)
    driver = Driver(lengths, [], seed)
    for peer in PEERS:
        driver.add(peer, [c for c in range(len(lengths)) if rng.random() < 0.5], rng.randrange(3))
    for _ in range(300):
        if driver.planner.done:
            break
        flights = [(peer, run) for peer, runs in driver.in_flight.items() for run in runs]
        if flights and rng.random() < 0.9:
            peer, run = rng.choice(flights)
            if rng.random() < trouble:
                driver.fail(
                    peer,
                    run,
                    rng.choice([FetchFault.LOST, FetchFault.CORRUPT, FetchFault.GONE]),
                    rng.randrange(len(run)),
                )
            else:
                driver.deliver(peer, run)
        elif rng.random() < 0.5:
            driver.gets(rng.choice(PEERS), rng.sample(range(len(lengths)), min(3, len(lengths))))
        else:
            driver.tick(rng.random())
        driver.check()
    driver.finish()


def planner(count: int, length: int = MIB) -> Planner:
    return Planner([length] * count, Bitmap(count), seed=1)


def fetched(actions: list[Action]) -> list[int]:
    return [c for a in actions if isinstance(a, Fetch) for c in a.run]


def test_nothing_to_do() -> None:
    empty = Planner([], Bitmap(0))
    assert empty.done
    assert not empty.stuck
    assert empty.handle(PeerAdded("p", Bitmap(0))) == []


def test_without_peers_it_is_stuck() -> None:
    assert planner(1).stuck


def test_rarest_first() -> None:
    drawn = {chunk for seed in range(50) for chunk in draw_first(seed)}
    assert {0, 1} <= drawn
    assert sum(draw_first(seed)[0] in {0, 1} for seed in range(50)) > 25  # 8 draws of 20 hit one of two in 68 of 100


def draw_first(seed: int) -> list[int]:
    """What is asked first of a getter that has 20 chunks, 18 of which two others have as well."""
    made = Planner([64 * MIB] * 20, Bitmap(20), seed=seed)
    made.handle(PeerAdded("getter", bits(20, [])))
    for name in ("common", "too"):
        made.handle(PeerAdded(name, bits(20, [])))
        made._missing.spread(range(2, 20), 1)
    return fetched(made.handle(PeerHas("getter", range(20))))[:1]


def test_chunks_of_peers_that_left_are_rare_again() -> None:
    made = planner(3)
    made.handle(PeerAdded("leaves", bits(3, [0, 1])))
    assert made._missing._spread == {0: 1, 1: 1}
    made.handle(PeerGone("leaves"))
    assert made._missing._spread == {0: 0, 1: 0}


def test_ties_are_random() -> None:
    firsts = {
        Planner([MIB] * 50, Bitmap(50), seed=n).handle(PeerAdded("p", Bitmap(50, full=True)))[0] for n in range(20)
    }
    assert len(firsts) > 5


def test_the_nearest_peer_is_asked_first() -> None:
    made = planner(1)
    made.handle(PeerAdded("first", Bitmap(1, full=True)))
    for name, distance in (("far", 2), ("near", 0), ("zone", 1)):
        assert made.handle(PeerAdded(name, Bitmap(1, full=True), distance)) == []
    assert made.handle(PeerGone("first")) == [Fetch("near", range(1))]


def test_small_adjacent_chunks_come_in_one_run() -> None:
    made = Planner([10] * 1000, Bitmap(1000), seed=3)
    actions = made.handle(PeerAdded("p", Bitmap(1000, full=True)))
    assert len(actions) == 1
    assert fetched(actions) == list(range(1000))


def run_lengths(seconds: float, *, getter: bool) -> list[int]:
    """Bytes of each run of an object of 1 MiB chunks, when runs take that long each."""
    planner = Planner([MIB] * 500, Bitmap(500), seed=1)
    asked = planner.handle(PeerAdded("origin", bits(500, range(500))))
    if getter:
        asked += planner.handle(PeerAdded("getter", bits(500, [])))
    now, sizes = 0.0, []
    while asked:
        fetch = asked.pop(0)
        assert isinstance(fetch, Fetch)
        sizes.append(len(fetch.run) * MIB)
        now += seconds / MOST_EACH
        asked += planner.handle(Fetched(fetch.peer, fetch.run, now))
    return sizes


def test_runs_grow_while_they_are_quick() -> None:
    sizes = run_lengths(QUICK_RUN_SECONDS / 2, getter=False)
    assert sizes[0] == RUN_BYTES
    assert LONG_RUN_BYTES // 2 < max(sizes) <= LONG_RUN_BYTES


def test_runs_stay_short_over_a_slow_network() -> None:
    assert set(run_lengths(2 * SLOW_RUN_SECONDS, getter=False)) == {RUN_BYTES}


def test_runs_stay_short_where_getters_wait_for_them() -> None:
    assert set(run_lengths(QUICK_RUN_SECONDS / 2, getter=True)) == {RUN_BYTES}


@pytest.mark.parametrize(("length", "requests"), [(64 * MIB, MOST_EACH), (MIB, 8), (600 * KIB, 14)])
def test_windows(length: int, requests: int) -> None:
    actions = planner(300, length).handle(PeerAdded("p", Bitmap(300, full=True)))
    assert len(actions) == requests


def test_the_window_of_requests_is_bounded_however_small_they_are() -> None:
    # Every other chunk is missing at the peer, so that no two can be fetched in one run.
    actions = planner(1000, 1).handle(PeerAdded("p", bits(1000, range(0, 1000, 2))))
    assert len(actions) == MAX_REQUESTS


def test_backoff_doubles_and_a_success_forgives() -> None:
    made = planner(10)
    made.handle(PeerAdded("p", Bitmap(10, full=True)))
    now = 0.0
    for fault in range(FAULTS_ALLOWED):
        run = next(iter(made._peers["p"].in_flight.values()))
        for other in list(made._peers["p"].in_flight.values()):
            if other != run:
                made.handle(Failed("p", other, FetchFault.UNTRIED, now))
        assert made.handle(Failed("p", run, FetchFault.LOST, now)) == []
        pause = BACKOFF_SECONDS * 2**fault
        assert made.handle(Tick(now + pause - 0.01)) == []
        assert not made.stuck
        now += pause
        assert made.handle(Tick(now)) != []
    run = next(iter(made._peers["p"].in_flight.values()))
    made.handle(Fetched("p", run))
    run = next(iter(made._peers["p"].in_flight.values()))
    assert Drop("p", banned=False) not in made.handle(Failed("p", run, FetchFault.LOST, now))


def test_a_clock_that_goes_back_is_ignored() -> None:
    made = planner(2)
    made.handle(PeerAdded("p", bits(2, [0])))
    made.handle(Failed("p", range(1), FetchFault.LOST, 100.0))
    assert made.handle(Tick(1.0)) == []
    assert made.handle(Tick(100.0 + BACKOFF_SECONDS)) == [Fetch("p", range(1))]


def test_events_of_peers_that_are_not_there() -> None:
    made = planner(3)
    for event in (PeerHas("p", [1]), PeerGone("p"), Failed("p", range(1), FetchFault.CORRUPT, 1.0)):
        assert made.handle(event) == []
    assert made.handle(PeerAdded("p", Bitmap(3, full=True))) != []
    assert made.banned == set()


def test_a_run_that_comes_after_its_peer_left() -> None:
    made = planner(1)
    made.handle(PeerAdded("p", Bitmap(1, full=True)))
    made.handle(PeerGone("p"))
    assert not made.done
    made.handle(Fetched("p", range(1)))
    assert made.done
    assert made.handle(PeerAdded("q", Bitmap(1, full=True))) == []


def test_a_late_failure_takes_nothing_from_another() -> None:
    made = planner(1)
    made.handle(PeerAdded("p", Bitmap(1, full=True)))
    made.handle(PeerGone("p"))
    assert made.handle(PeerAdded("q", Bitmap(1, full=True))) == [Fetch("q", range(1))]
    made.handle(PeerAdded("p", Bitmap(1, full=True)))
    assert made.handle(Failed("p", range(1), FetchFault.LOST, 0.0)) == []
    assert made.active == 1


def test_what_comes_late_while_another_writes_the_same_place_does_not_count() -> None:
    made = planner(1)
    made.handle(PeerAdded("p", Bitmap(1, full=True)))
    made.handle(PeerGone("p"))
    assert made.handle(PeerAdded("q", Bitmap(1, full=True))) == [Fetch("q", range(1))]
    made.handle(Fetched("p", range(1)))
    assert not made.done
    made.handle(Failed("q", range(1), FetchFault.LOST, 0.0))
    assert made.handle(Tick(100.0)) == [Fetch("q", range(1))]


def test_what_was_kept_of_a_failed_run_counts_though_its_peer_was_given_up() -> None:
    made = Planner([10] * 4, Bitmap(4), seed=1)
    made.handle(PeerAdded("p", Bitmap(4, full=True)))
    made.handle(PeerGone("p"))
    made.handle(Failed("p", range(4), FetchFault.LOST, 0.0, kept=3))
    assert list(made.had) == [0, 1, 2]
    assert fetched(made.handle(PeerAdded("q", Bitmap(4, full=True)))) == [3]


def test_a_late_run_is_not_taken_for_the_one_that_begins_at_the_same_chunk() -> None:
    made = Planner([10] * 4, Bitmap(4), seed=1)
    assert fetched(made.handle(PeerAdded("p", bits(4, [0, 1])))) == [0, 1]
    made.handle(PeerGone("p"))
    assert fetched(made.handle(PeerAdded("p", Bitmap(4, full=True)))) == [0, 1, 2, 3]
    made.handle(Fetched("p", range(2)))
    assert not made.stuck
    assert not made.done
    assert fetched(made.handle(Failed("p", range(4), FetchFault.UNTRIED, 0.0))) == [0, 1, 2, 3]


def test_what_a_closed_peer_writes_is_asked_of_another_only_when_it_is_released() -> None:
    """D4: the wait for a write that hangs is the planner's knowledge, and nobody's blocked thread."""
    made = planner(2, 64 * MIB)
    made.handle(PeerAdded("p", Bitmap(2, full=True)))
    actions = made.handle(Closed("p", [range(1)]))
    assert actions == []
    assert made.peers == ()
    assert fetched(made.handle(PeerAdded("q", Bitmap(2, full=True)))) == [1]
    made.handle(Fetched("q", range(1, 2), 1.0))
    assert made.active == 0
    assert not made.stuck, "what is being written may yet arrive"
    assert made.only_writes
    assert made.handle(Released("p", range(1))) == [Fetch("q", range(1))]
    assert not made.only_writes


def test_a_run_that_arrives_whole_from_a_closed_peer_counts() -> None:
    made = planner(1)
    made.handle(PeerAdded("p", Bitmap(1, full=True)))
    made.handle(Closed("p", [range(1)]))
    assert made.handle(Fetched("p", range(1), 1.0)) == []
    assert made.done


def test_a_peer_that_comes_back_may_not_be_asked_for_what_it_still_writes() -> None:
    made = planner(2, 64 * MIB)
    made.handle(PeerAdded("p", Bitmap(2, full=True)))
    made.handle(Closed("p", [range(1)]))
    assert fetched(made.handle(PeerAdded("p", Bitmap(2, full=True)))) == [1]
    assert fetched(made.handle(Released("p", range(1)))) == [0]


def test_what_a_dropped_peer_had_in_flight_waits_until_it_is_closed() -> None:
    made = planner(2, 64 * MIB)
    made.handle(PeerAdded("p", Bitmap(2, full=True)))
    assert made.handle(PeerAdded("q", Bitmap(2, full=True))) == []
    actions = made.handle(Failed("p", range(1), FetchFault.GONE, 0.0))
    assert actions[0] == Drop("p", banned=False)
    assert fetched(actions) == [0], "what it reported lost is free, what else it has in flight is not"
    assert fetched(made.handle(Closed("p"))) == [1]


def test_a_slow_run_is_taken_away_when_another_has_it() -> None:
    made = planner(40, 64 * MIB)
    first = made.handle(PeerAdded("quick", Bitmap(40, full=True)))
    slow = made.handle(PeerAdded("slow", Bitmap(40, full=True)))
    assert [a.peer for a in slow if isinstance(a, Fetch)] == ["slow"] * MOST_EACH
    stuck = next(a.run for a in slow if isinstance(a, Fetch))
    waiting = [a.run for a in first if isinstance(a, Fetch)]
    now = 0.0
    while now < 20.0:
        now += 0.5
        run = waiting.pop(0)
        waiting += [a.run for a in made.handle(Fetched("quick", run, now)) if isinstance(a, Fetch)]
        cancelled = [a for a in made.handle(Tick(now)) if isinstance(a, Cancel)]
        if cancelled:
            break
    assert Cancel("slow", stuck) in cancelled
    assert now > MIN_PATIENCE
    assert made.handle(Tick(now + 1)) == [], "it is cancelled once"
    made.handle(Failed("slow", stuck, FetchFault.SLOW, now))
    assert fetched(made.handle(Tick(now + 100))) == [], "the slow peer has others in flight, and gets no more"


def test_the_only_one_who_has_it_may_take_as_long_as_it_takes() -> None:
    made = planner(3)
    made.handle(PeerAdded("only", Bitmap(3, full=True)))
    made.handle(Fetched("only", range(1), 0.1))
    assert made.handle(Tick(1000.0)) == []
