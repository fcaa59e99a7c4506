from __future__ import annotations

from collections.abc import Sequence

import pytest

from engine.topology import Address, Nic, Route, SourceChoice, Topology, source_addresses
from engine.topology.sources import MAX_AGE


def nic(name: str, index: int, *addresses: str, speed: int | None = 100_000, up: bool = True) -> Nic:
    pairs = [text.split("/") for text in addresses]
    return Nic(name, index, up, speed=speed, addresses=tuple(Address(a, int(p)) for a, p in pairs))


def topology(nics: Sequence[Nic], *routes: Route) -> Topology:
    return Topology(
        nics=(Nic("lo", 1, up=True, loopback=True, addresses=(Address("127.0.0.1", 8),)), *nics), routes=routes
    )


TWO = topology(
    [nic("eth0", 2, "10.0.0.1/24"), nic("eth1", 3, "10.0.0.2/24", "192.168.5.1/24"), nic("eth2", 4, "172.16.0.1/16")],
    Route("10.0.0.0/24", 2, "", 100),
    Route("10.0.0.0/24", 3, "", 101),
    Route("192.168.5.0/24", 3),
    Route("172.16.0.0/16", 4),
    Route("0.0.0.0/0", 4, "172.16.0.254", 100),
)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("10.0.0.9", ["10.0.0.1", "10.0.0.2"]),  # both are on its network, whatever their metric
        ("::ffff:10.0.0.9", ["10.0.0.1", "10.0.0.2"]),
        ("192.168.5.9", []),  # one card only: nothing to choose
        ("172.16.9.9", []),
        ("8.8.8.8", []),  # by the gateway of one
        ("10.0.0.2", []),  # ourselves
        ("127.0.0.1", []),
        ("fe80::1%eth0", []),
        ("fd00::9", []),  # no route of that family
        ("peer.example", []),
        ("", []),
    ],
)
def test_cards_on_the_peers_network(peer: str, expected: list[str]) -> None:
    assert source_addresses(TWO, peer) == expected


def test_routes_through_gateways_count_where_they_are_equal() -> None:
    nics = [nic("a", 2, "10.0.0.1/24"), nic("b", 3, "10.0.1.1/24"), nic("c", 4, "10.0.2.1/24")]
    found = topology(
        nics,
        Route("10.9.0.0/16", 2, "10.0.0.254", 0),
        Route("10.9.0.0/16", 3, "10.0.1.254", 0),
        Route("10.9.0.0/16", 4, "10.0.2.254", 50),
        Route("10.0.0.0/8", 4, "10.0.2.254", 0),
    )
    assert source_addresses(found, "10.9.1.1") == ["10.0.0.1", "10.0.1.1"]
    assert source_addresses(found, "10.8.1.1") == []


def test_cards_that_are_down_or_far_slower_are_left_out() -> None:
    routes = [Route("10.0.0.0/24", index) for index in (2, 3, 4, 5)]
    nics = [
        nic("fast", 2, "10.0.0.1/24", speed=100_000),
        nic("half", 3, "10.0.0.2/24", speed=50_000),
        nic("slow", 4, "10.0.0.3/24", speed=1000),
        nic("off", 5, "10.0.0.4/24", up=False),
    ]
    assert source_addresses(topology(nics, *routes), "10.0.0.9") == ["10.0.0.1", "10.0.0.2"]


def test_a_card_that_tells_no_speed_counts() -> None:
    nics = [nic("a", 2, "10.0.0.1/24", speed=None), nic("b", 3, "10.0.0.2/24", speed=None)]
    found = topology(nics, Route("10.0.0.0/24", 2), Route("10.0.0.0/24", 3))
    assert source_addresses(found, "10.0.0.9") == ["10.0.0.1", "10.0.0.2"]


def test_ipv6_takes_no_link_local_address() -> None:
    nics = [nic("a", 2, "fe80::1/64", "fd00::1/64"), nic("b", 3, "fe80::2/64", "fd00::2/64")]
    found = topology(nics, Route("fd00::/64", 2, "", 256), Route("fd00::/64", 3, "", 256))
    assert source_addresses(found, "fd00::9") == ["fd00::1", "fd00::2"]


def test_connections_take_turns_for_each_peer_without_what_failed() -> None:
    asked: list[int] = []

    def ask() -> Topology:
        asked.append(1)
        return three

    nics = [nic(name, index, f"10.0.0.{index}/24") for name, index in (("a", 2), ("b", 3), ("c", 4))]
    three = topology(nics, *(Route("10.0.0.0/24", index) for index in (2, 3, 4)))
    choice = SourceChoice(ask)
    assert [choice.next("10.0.0.9") for _ in range(4)] == ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.2"]
    assert choice.next("10.0.0.8") == "10.0.0.2"
    choice.failed("10.0.0.9", "10.0.0.3")
    assert {choice.next("10.0.0.9") for _ in range(4)} == {"10.0.0.2", "10.0.0.4"}
    choice.failed("10.0.0.9", "10.0.0.2")
    assert choice.next("10.0.0.9") == ""
    assert len(asked) == 1


def test_loopback_does_not_even_ask() -> None:
    def never() -> Topology:
        pytest.fail("asked")

    assert SourceChoice(never).next("127.0.0.1") == SourceChoice(never).next("::1") == ""


def test_a_topology_that_is_old_is_read_again_and_failures_are_forgotten() -> None:
    now = [5.0]
    choice = SourceChoice(lambda: TWO, clock=lambda: now[0])
    assert {choice.next("10.0.0.9") for _ in range(2)} == {"10.0.0.1", "10.0.0.2"}
    choice.failed("10.0.0.9", "10.0.0.1")
    now[0] += MAX_AGE
    assert choice.next("10.0.0.9") == ""
    now[0] += 0.1
    assert {choice.next("10.0.0.9") for _ in range(2)} == {"10.0.0.1", "10.0.0.2"}
