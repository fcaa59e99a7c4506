"""Whatever peers do, every chunk is fetched by somebody who has it, and no more often than needed.

They come, go, get more chunks, deliver, break off in the middle, lie and refuse, in any order that hypothesis thinks of.
"""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from p2pstore.swarm.events import (
    FetchFault,
)
from tests.p2pstore.swarm.driver import Driver
from tests.p2pstore.swarm.planners import KIB, MIB

PEERS = [f"peer {n}" for n in range(5)]
SIZES = st.sampled_from([1, 100 * KIB, 400 * KIB, MIB, 3 * MIB, 8 * MIB])


class AnyStory(RuleBasedStateMachine):
    """Peers at their worst."""

    @initialize(lengths=st.lists(SIZES, min_size=1, max_size=40), data=st.data(), seed=st.integers(0, 9))
    def begin(self, lengths: list[int], data: st.DataObject, seed: int) -> None:
        self.size = len(lengths)
        self.driver = Driver(lengths, data.draw(self.chunks()), seed)

    def chunks(self) -> st.SearchStrategy[list[int]]:
        return st.just(list(range(self.size))) | st.lists(st.integers(0, self.size - 1), max_size=8, unique=True)

    @rule(
        peer=st.sampled_from(PEERS),
        distance=st.integers(0, 2),
        shared=st.booleans(),
        grants=st.booleans(),
        connections=st.integers(1, 12),
        data=st.data(),
    )
    def comes(
        self, peer: str, distance: int, shared: bool, grants: bool, connections: int, data: st.DataObject
    ) -> None:
        chunks = data.draw(self.chunks())
        self.driver.add(peer, chunks, distance, shared=shared, grants=grants, connections=connections)

    @rule(peer=st.sampled_from(PEERS), data=st.data())
    def gets_more(self, peer: str, data: st.DataObject) -> None:
        self.driver.gets(peer, data.draw(self.chunks()))

    @rule(peer=st.sampled_from(PEERS), shared=st.booleans())
    def is_shared(self, peer: str, shared: bool) -> None:
        self.driver.share(peer, shared)

    @rule(peer=st.sampled_from(PEERS), data=st.data())
    def grants(self, peer: str, data: st.DataObject) -> None:
        first = st.integers(0, self.size - 1)
        run = first.flatmap(lambda f: st.integers(f + 1, min(f + 2, self.size)).map(lambda stop: range(f, stop)))
        names = peer in self.driver.origins  # only an origin has what it names
        self.driver.grant(peer, data.draw(st.none() | run) if names else None)

    @precondition(lambda self: any(self.driver.in_flight.values()))
    @rule(data=st.data())
    def is_nearly_there(self, data: st.DataObject) -> None:
        self.driver.ends(*self.one_in_flight(data))

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
