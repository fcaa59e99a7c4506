"""Flows share links: fairly, wholly, and never beyond what a link carries."""

from __future__ import annotations

import pytest

from p2pstore.bench.links import Flow, Links, SimulatedLink


class Network:
    """Links with a clock that goes from one wake-up to the next."""

    def __init__(self) -> None:
        self.links = Links(lambda due, flow: self.due.append((due, flow)))
        self.due: list[tuple[float, Flow]] = []
        self.now = 0.0

    def start(self, size: float, *links: SimulatedLink) -> Flow:
        flow = Flow(size, links, None)
        self.links.start(flow, self.now)
        return flow

    def until_one_ends(self) -> Flow:
        while True:
            self.due.sort(key=lambda item: item[0])
            self.now, flow = self.due.pop(0)
            if flow.due == self.now and self.links.check(flow, self.now):
                self.links.stop(flow, self.now)
                return flow


def test_alone_it_gets_its_narrowest_link() -> None:
    network = Network()
    flow = network.start(100.0, SimulatedLink(10), SimulatedLink(5))
    assert flow.rate == 5
    assert network.until_one_ends() is flow
    assert network.now == pytest.approx(20)


def test_two_share_and_the_second_speeds_up_when_the_first_ends() -> None:
    network, shared = Network(), SimulatedLink(10)
    first = network.start(50.0, shared, SimulatedLink(10))
    second = network.start(100.0, shared, SimulatedLink(10))
    assert (first.rate, second.rate) == (5, 5)
    assert network.until_one_ends() is first
    assert network.now == pytest.approx(10)
    assert second.rate == 10
    assert network.until_one_ends() is second
    assert network.now == pytest.approx(15)


def test_what_one_cannot_use_others_get() -> None:
    network, shared = Network(), SimulatedLink(12)
    slow = network.start(1e6, shared, SimulatedLink(2))
    fast = [network.start(1e6, shared, SimulatedLink(100)) for _ in range(2)]
    assert slow.rate == 2
    assert [flow.rate for flow in fast] == [5, 5]
    assert shared.spare == pytest.approx(0)


def test_what_gives_way_on_one_link_frees_another_for_its_neighbour() -> None:
    network, up, down = Network(), SimulatedLink(10), SimulatedLink(10)
    crossing = network.start(1e6, up, down)
    beside = network.start(1e6, up, SimulatedLink(100))
    assert (crossing.rate, beside.rate) == (5, 5)
    network.start(1e6, SimulatedLink(100), down)
    network.start(1e6, SimulatedLink(100), down)
    assert crossing.rate == pytest.approx(10 / 3)
    assert beside.rate == pytest.approx(10 - 10 / 3)


def test_slowed_flows_are_through_when_their_bytes_are() -> None:
    network, shared = Network(), SimulatedLink(10)
    for size in (30.0, 60.0, 90.0):
        network.start(size, shared)
    ends = []
    for _ in range(3):
        network.until_one_ends()
        ends.append(network.now)
    assert ends == pytest.approx([9, 15, 18])
    assert shared.spare == 10


def test_a_link_that_carries_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        SimulatedLink(0)
