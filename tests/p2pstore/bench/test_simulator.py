"""Small swarms in simulated time: everybody finishes, whatever happens, and equal seeds make equal runs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pstore.bench.scenario import Scenario
from p2pstore.bench.simulated_node import SimulatedNode
from p2pstore.bench.simulated_processors import PAYLOAD, Costs
from p2pstore.bench.simulator import SEED, Simulation, simulate
from p2pstore.swarm.audience import MAX_LISTENERS
from p2pstore.swarm.events import Action, Event, PeerShared
from p2pstore.swarm.gateway import Gateway
from p2pstore.swarm.planner import Planner

MIB = 1 << 20
SMALL = Scenario(receivers=12, size=64 * MIB, chunk_size=MIB, rate=25e6, sources=6)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    receivers = draw(st.integers(1, 10))
    slow = draw(st.integers(0, receivers))
    return Scenario(
        receivers=receivers,
        size=draw(st.integers(1, 24 * MIB)),
        chunk_size=draw(st.sampled_from([64 << 10, MIB, 4 * MIB])),
        rate=draw(st.sampled_from([1e6, 1e8])),
        latency=draw(st.sampled_from([0.0, 0.0005, 0.05])),
        zones=draw(st.integers(1, 3)),
        zone_rate=draw(st.sampled_from([0.0, 3e6])),
        sources=draw(st.integers(1, 12)),
        slots=draw(st.integers(1, 8)),
        slow=slow,
        slow_rate=draw(st.sampled_from([1e5, 1e7])),
        arrivals=draw(st.sampled_from([0.0, 0.01, 5.0])),
        deaths=draw(st.integers(0, receivers)),
        seed=draw(st.integers(0, 3)),
        processors=draw(st.integers(0, 3)),
        costs=Costs(1e-8, 1e-4),
    )


@given(scenarios())
@settings(max_examples=60, deadline=None)
def test_everybody_alive_finishes(scenario: Scenario) -> None:
    outcome = simulate(scenario)
    assert outcome.unfinished == 0
    assert len(outcome.seconds) + outcome.died >= scenario.receivers
    assert outcome.died <= scenario.deaths
    assert outcome.sent_bytes >= scenario.size * len(outcome.seconds)
    # Nobody is faster than a link, and all together are no faster than what they can send.
    fastest = max(scenario.rate, scenario.slow_rate if scenario.slow else 0)
    assert all(seconds >= scenario.size / fastest * (1 - 1e-6) for seconds in outcome.seconds)
    if not scenario.deaths and not scenario.slow and scenario.arrivals == 0 and not scenario.zone_rate:
        assert outcome.sent_bytes == scenario.size * scenario.receivers, "nothing is fetched twice"
    senders = (1 + scenario.receivers) * fastest
    assert outcome.sent_bytes <= senders * (outcome.last + outcome.nearness.bound) * (1 + 1e-6) or not outcome.seconds


@given(scenarios())
@settings(max_examples=30, deadline=None)
def test_no_grant_leaks(scenario: Scenario) -> None:
    simulation = Simulation(scenario)
    simulation.run()
    for node in [simulation._seed, *simulation._present]:
        if node.alive:
            granter = node.audience.granter
            assert granter._followers.keys() <= node.listeners.keys(), "who left holds nothing"
            for key in list(node.listeners):
                node.audience.leave(key)
            assert granter.under_way == len(granter._running) == 0


@given(scenarios())
@settings(max_examples=10, deadline=None)
def test_equal_scenarios_come_out_equal(scenario: Scenario) -> None:
    assert simulate(scenario).to_json() == simulate(scenario).to_json()


def test_another_seed_is_another_run() -> None:
    assert simulate(SMALL).seconds != simulate(replace(SMALL, seed=1)).seconds


def test_one_receiver_takes_as_long_as_its_link() -> None:
    outcome = simulate(replace(SMALL, receivers=1))
    assert outcome.last == pytest.approx(SMALL.size / SMALL.rate, rel=0.02)
    assert outcome.seed_ratio == pytest.approx(1.0)
    assert outcome.connections == [1]


def test_many_take_little_longer_than_one() -> None:
    outcome = simulate(SMALL)
    assert outcome.nearness.percent > 75
    assert outcome.seed_ratio < 1.2, "twelve receivers, and a seed that sends to each would send twelve times"


def test_more_than_a_seed_bears_finish() -> None:
    outcome = simulate(replace(SMALL, receivers=3 * MAX_LISTENERS, size=32 * MIB, sources=8))
    assert len(outcome.seconds) == 3 * MAX_LISTENERS
    assert outcome.seed_ratio < 2
    assert max(outcome.connections) <= MAX_LISTENERS + 8 + 1


def test_receivers_bound_their_connections() -> None:
    outcome = simulate(replace(SMALL, receivers=60, size=8 * MIB, sources=5))
    assert outcome.unfinished == 0
    # It follows 5 and the seed; who follows it is chance, about 5 more.
    assert sum(outcome.connections) / 60 < 12


def test_the_others_finish_though_some_die() -> None:
    outcome = simulate(replace(SMALL, deaths=5, notice=0.3))
    assert outcome.died == 5
    assert len(outcome.seconds) == 7
    assert outcome.unfinished == 0


def test_late_arrivals_finish_too() -> None:
    outcome = simulate(replace(SMALL, arrivals=8.0))
    assert len(outcome.seconds) == SMALL.receivers
    assert outcome.last > 7.0


def test_the_seed_may_die_after_everything_is_out() -> None:
    outcome = simulate(replace(SMALL, seed_dies_after=2.0, notice=0.3))
    assert outcome.unfinished == 0
    assert len(outcome.seconds) == SMALL.receivers
    assert outcome.seed_ratio <= 2.1


def test_nobody_finishes_when_the_seed_dies_too_early() -> None:
    outcome = simulate(replace(SMALL, seed_dies_after=0.5, notice=0.3))
    assert outcome.seconds == []
    assert outcome.unfinished == SMALL.receivers


def test_chunks_are_as_a_register_makes_them() -> None:
    assert Scenario(receivers=1, size=140_000_000_000).chunk_size == 64 * MIB
    assert Scenario(receivers=1, size=20_000_000_000).chunk_size == 16 * MIB
    assert Scenario(receivers=1, size=20_000_000_000, chunk_size=MIB).chunk_size == MIB


def test_equal_links_have_a_hop_cost_and_others_a_bound_of_their_own() -> None:
    equal = SMALL.nearness(3.0)
    assert equal.hop_cost is not None
    assert equal.bound == pytest.approx(SMALL.size / SMALL.rate * (1 + math.log2(12) / 64))
    slow = replace(SMALL, slow=1, slow_rate=SMALL.rate / 10).nearness(30.0)
    assert slow.hop_cost is None
    assert slow.bound == pytest.approx(10 * SMALL.size / SMALL.rate)
    thin = replace(SMALL, zones=2, zone_rate=SMALL.rate / 4)
    assert thin.nearness(30.0).bound == pytest.approx(4 * SMALL.size / SMALL.rate)
    assert replace(thin, receivers=1).nearness(3.0).bound == pytest.approx(SMALL.size / SMALL.rate)


def test_a_slow_receiver_is_late_alone() -> None:
    outcome = simulate(replace(SMALL, slow=1, slow_rate=SMALL.rate / 10))
    *others, slowest = sorted(outcome.seconds)
    assert slowest >= 10 * SMALL.size / SMALL.rate
    assert max(others) < slowest


def test_a_thin_link_between_zones_carries_no_more_than_it_can() -> None:
    thin = replace(SMALL, zones=2, zone_rate=SMALL.rate / 4, zone_latency=0.01)
    outcome = simulate(thin)
    assert outcome.unfinished == 0
    assert outcome.last >= thin.size / thin.zone_rate  # all of it must cross once


ZONES = replace(SMALL, receivers=16, zones=2, zone_rate=SMALL.rate / 10, zone_latency=0.002)


@pytest.mark.parametrize("seed", range(3))
def test_a_thin_link_between_zones_carries_each_chunk_once(seed: int) -> None:
    outcome = simulate(replace(ZONES, seed=seed))
    assert outcome.unfinished == 0
    assert outcome.crossed_in.keys() == {1}, "who has the seed in its zone fetches nothing from abroad"
    assert outcome.crossed_in[1] == outcome.crossed_out[0] <= 1.05 * ZONES.size
    assert outcome.nearness.percent > 90


def test_a_zone_whose_gateway_dies_gets_the_rest() -> None:
    simulation = Simulation(replace(ZONES, notice=0.5))
    died: list[str] = []

    def kill() -> None:
        gateways = [node for node in simulation._present if node.planner is not None and node.planner._zone.mine]
        for node in gateways[:1]:
            simulation._die(node)
            died.append(node.name)

    for seconds in (3.0, 6.0, 9.0):
        simulation._clock.at(seconds, kill)
    outcome = simulation.run()
    assert len(died) == outcome.died == 3
    assert outcome.unfinished == 0
    assert outcome.last < 1.3 * ZONES.size / ZONES.zone_rate
    assert outcome.crossed_in[1] < 1.3 * ZONES.size, "what each of them had on its way, or had passed to few"


def test_no_zone_elects_a_gateway_anew_because_somebody_follows_another_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sixty-nine elections for two zones where nobody left, and the last came a sixth later."""
    elections: list[Gateway] = []
    begin, lose = Gateway._begin, Simulation._lose
    lost: list[str] = []

    def begun(self: Gateway) -> None:
        elections.append(self)
        begin(self)

    def loses(self: Simulation, node: SimulatedNode, source: SimulatedNode) -> None:
        lost.append(source.name)
        lose(self, node, source)

    monkeypatch.setattr(Gateway, "_begin", begun)
    monkeypatch.setattr(Simulation, "_lose", loses)
    simulate(replace(SMALL, receivers=40, zones=2, zone_latency=0.01, arrivals=2.0))
    assert len(lost) > 100
    assert not elections


def test_zones_whose_links_are_not_thin_lose_little() -> None:
    wide = replace(SMALL, receivers=24, size=256 * MIB, zones=3, zone_latency=0.0)
    assert simulate(wide).last < 1.2 * simulate(replace(wide, zones=1)).last


def test_receivers_hear_of_the_others_as_a_replica_tells_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica says when one is alone with it again; the simulator did not, and so simulated another rule."""
    heard: list[bool] = []
    handle = Planner.handle

    def listening(planner: Planner, event: Event) -> list[Action]:
        if isinstance(event, PeerShared):
            assert event.peer == SEED, "who has a part is no origin, and nobody shares it"
            heard.append(event.shared)
        return handle(planner, event)

    monkeypatch.setattr(Planner, "handle", listening)
    outcome = simulate(replace(SMALL, receivers=2, deaths=1, notice=0.1))
    assert outcome.died == 1
    assert len(outcome.seconds) == 1
    assert heard == [True, False]


def test_processors_that_all_share_make_a_swarm_late_when_they_are_few() -> None:
    costs = Costs(byte_seconds=1e-8, message_seconds=2e-4)
    free = simulate(SMALL)
    many, few = (simulate(replace(SMALL, processors=count, costs=costs)) for count in (64, 1))
    assert free.busy is None
    assert many.busy is not None
    assert few.busy is not None
    assert free.last / PAYLOAD < many.last * 1.05, "headers take their part of the cards"
    assert many.last < few.last
    assert many.busy < 0.1
    assert few.busy > 0.9
    total = SMALL.size * SMALL.receivers * costs.byte_seconds + few.messages * costs.message_seconds
    assert few.last > total * 0.9, "all of it is done by one"
    assert few.wakes < many.wakes, "who has much to do hears several things at once"
    assert few.unfinished == 0


def test_messages_are_counted_whether_they_cost_anything_or_not() -> None:
    free, counted = simulate(SMALL), simulate(replace(SMALL, processors=64, costs=Costs(0.0, 0.0)))
    each = SMALL.receivers * SMALL.chunks
    assert each < free.messages < 2 * SMALL.receivers * each, "news of each chunk to all, and words about each fetch"
    assert counted.messages == pytest.approx(free.messages, rel=0.2)


def test_progress_only_grows() -> None:
    samples = simulate(SMALL).samples
    assert len(samples) > 50
    assert all(0 <= s.least <= s.mean <= s.most <= 1 for s in samples)
    assert [s.mean for s in samples] == sorted(s.mean for s in samples)


@pytest.mark.parametrize(
    "wrong", [{"receivers": 0}, {"rate": 0.0}, {"slow": 2, "receivers": 1}, {"deaths": 99}, {"processors": -1}]
)
def test_nonsense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        replace(SMALL, **wrong)


def test_no_link_carries_more_than_it_can() -> None:
    simulation = Simulation(replace(SMALL, zones=2, zone_rate=SMALL.rate))
    simulation._populate()
    links = [node_link for zone in simulation._sends._zones for node_link in zone]
    links += [link for node in [simulation._seed, *simulation._present] for link in (node.up, node.down)]
    checked = 0
    while simulation._clock.step():
        for link in links:
            used = sum(flow.rate for flow in link.flows)
            assert used <= link.capacity * (1 + 1e-6)
            assert link.spare == pytest.approx(link.capacity - used, abs=link.capacity * 1e-6)
            checked += bool(link.flows)
    assert checked > 1000
