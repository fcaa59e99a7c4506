"""Messages are heard after the delay between two nodes, and when the processors have had their time."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from p2pstore.bench.scenario import Outcome, Scenario
from p2pstore.bench.simulated_messages import Messages
from p2pstore.bench.simulated_node import SimulatedNode
from p2pstore.bench.simulated_processors import Costs
from p2pstore.bench.virtual_clock import VirtualClock
from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.audience import Audience

SCENARIO = Scenario(receivers=2, size=1 << 20, rate=1e6, latency=0.5, zones=2, zone_latency=2.0)


def node(name: str, zone: int = 0) -> SimulatedNode:
    return SimulatedNode(name, zone, 1e6, 4, Bitmap(1), Audience(lambda: [1], random.Random(0)))


class World:
    def __init__(self, scenario: Scenario) -> None:
        self.clock = VirtualClock([0.5, 2.5])
        self.outcome = Outcome(scenario)
        self.messages = Messages(self.clock, scenario, self.outcome)
        self.heard: list[tuple[float, object]] = []

    def hear(self, *what: object) -> None:
        self.heard.append((self.clock.now, what[-1]))

    def run(self) -> list[tuple[float, object]]:
        self.clock.run(100.0)
        return self.heard


def test_what_is_near_is_heard_sooner() -> None:
    world = World(SCENARIO)
    a, b, c = node("a"), node("b"), node("c", zone=1)
    assert (world.messages.delay(a, b), world.messages.delay(a, c)) == (0.5, 2.5)
    world.messages.say(a, c, world.hear, "far")
    world.messages.say(a, b, world.hear, "near")
    assert world.run() == [(0.5, "near"), (2.5, "far")]
    assert (world.outcome.messages, world.outcome.wakes) == (2, 0)


def test_processors_take_one_message_after_another_and_a_wake_once() -> None:
    world = World(replace(SCENARIO, processors=1, costs=Costs(0.0, 0.1, 0.3)))
    a, b = node("a"), node("b")
    for what in ("one", "two"):
        world.messages.say(a, b, world.hear, what)
    heard = world.run()
    assert [what for _, what in heard] == ["one", "two"]
    assert [time for time, _ in heard] == pytest.approx([0.9, 1.0])
    assert (world.outcome.messages, world.outcome.wakes) == (2, 1)
    assert world.messages.processors is not None
    assert world.messages.processors.spent == pytest.approx(0.5)


@pytest.mark.parametrize("processors", [0, 1])
def test_the_same_to_many_are_as_many_messages(processors: int) -> None:
    world = World(replace(SCENARIO, processors=processors, costs=Costs(0.0, 0.1)))
    a, others = node("a"), [node(name) for name in "bcd"]
    told: list[str] = []

    def hear(one: SimulatedNode, heard: list[SimulatedNode], what: str) -> None:
        told.extend(one.name + each.name + what for each in heard)

    world.messages.say_to_all(a, 0.5, others, hear, "!")
    world.run()
    assert sorted(told) == ["ab!", "ac!", "ad!"]
    assert world.outcome.messages == 3
