"""What a simulated node tells its listeners: once each, together with grants, and to the others a little later."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from p2pstore.bench.scenario import Outcome, Scenario
from p2pstore.bench.simulated_messages import Messages
from p2pstore.bench.simulated_news import News
from p2pstore.bench.simulated_node import SimulatedNode
from p2pstore.bench.virtual_clock import VirtualClock
from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.audience import Audience
from p2pstore.swarm.events import Event, Opened, PeerClaims, PeerHas, PeerShared
from p2pstore.swarm.gateway import Claim, Rank
from p2pstore.swarm.granter import Grant
from p2pstore.swarm.words import say

CHUNKS = 8
SCENARIO = Scenario(receivers=2, size=CHUNKS << 20, chunk_size=1 << 20, rate=1e6, latency=0.5)


class World:
    """A source that two nodes follow."""

    def __init__(self) -> None:
        self.clock = VirtualClock([0.5])
        messages = Messages(self.clock, SCENARIO, Outcome(SCENARIO))
        self.news = News(self.clock, messages, self.deliver, self.hear_grant)
        self.source, self.one, self.other = (self.node(name) for name in ("source", "one", "other"))
        self.told: list[tuple[str, Event]] = []
        self.chunks: dict[str, list[int]] = {"one": [], "other": []}
        self.grants: list[str] = []
        for node in (self.one, self.other):
            self.source.listeners[node.name] = node
            self.source.untold.join(node.name)
            self.source.audience.join(node.name, seeds=True, whole=False, grants=True, abroad=False)
            self.source.audience.speaks(node.name, empty=True)

    def node(self, name: str) -> SimulatedNode:
        audience = Audience(lambda: [1 << 20] * CHUNKS, random.Random(0))
        return SimulatedNode(name, 0, 1e6, 4, Bitmap(CHUNKS), audience)

    def deliver(self, source: SimulatedNode, listeners: Sequence[SimulatedNode], events: Sequence[Event]) -> None:
        assert source is self.source
        for node in listeners:
            for event in events:
                self.told.append((node.name, event))
                if isinstance(event, PeerHas):
                    self.chunks[node.name] += event.chunks

    def hear_grant(self, node: SimulatedNode, name: str, grant: Grant, news: Sequence[range]) -> None:
        assert name == "source"
        self.grants.append(node.name)
        self.chunks[node.name] += [chunk for run in news for chunk in run]

    def run(self, seconds: float = 100.0) -> None:
        self.clock.run(self.clock.now + seconds)


@pytest.fixture
def world() -> World:
    return World()


def test_each_listener_hears_of_each_chunk_once(world: World) -> None:
    for chunk in (3, 5, 6):
        world.source.had.add(chunk)
        world.news.gather(world.source, range(chunk, chunk + 1))
    world.run()
    assert {name: sorted(chunks) for name, chunks in world.chunks.items()} == {"one": [3, 5, 6], "other": [3, 5, 6]}


def test_news_of_chunks_waits_to_be_gathered(world: World) -> None:
    world.news.gather(world.source, range(3))
    late = world.source.audience.granter.late
    world.run(late / 2)
    assert [event for _, event in world.told if isinstance(event, PeerHas)] == []
    world.news.gather(world.source, range(4, 5))
    world.run()
    told = [(name, event) for name, event in world.told if isinstance(event, PeerHas)]
    assert len(told) + len(world.grants) >= 2
    assert all(len(event.chunks) >= 1 for _, event in told)


def test_who_has_room_is_granted_something(world: World) -> None:
    world.source.had.update(range(CHUNKS))
    for node in (world.one, world.other):
        say(world.source.audience.granter, node.name, Opened("source", 0), world.clock.now)
    world.news.grant(world.source)
    world.run()
    assert set(world.grants) == {"one", "other"}


def test_a_dead_source_grants_nothing(world: World) -> None:
    world.source.alive = False
    world.news.grant(world.source)
    world.run()
    assert world.grants == []


def test_claims_and_sharing_reach_whom_they_concern(world: World) -> None:
    claim = Claim(1, 2, Rank.ACTING, 7)
    world.news.claim(world.source, claim)
    world.news.share(world.source, ["other"])
    world.run()
    assert world.source.claims == {1: claim}
    assert [(name, event) for name, event in world.told if isinstance(event, PeerClaims)] == [
        ("one", PeerClaims("source", claim)),
        ("other", PeerClaims("source", claim)),
    ]
    assert [name for name, event in world.told if isinstance(event, PeerShared)] == ["other"]


def test_without_listeners_nothing_is_said(world: World) -> None:
    alone = world.node("alone")
    world.news.gather(alone, range(2))
    assert world.clock.events == 0
