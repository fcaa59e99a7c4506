"""Devices as nodes tell them, and which of ours reach which of theirs."""

from __future__ import annotations

import pytest

from engine.transports.rdma.addresses import (
    MAX_DEVICES,
    MAX_RAILS,
    RdmaAddress,
    from_text,
    gid_from_wire,
    gid_to_wire,
    neighbours,
    pair_up,
    reachable,
    to_text,
    why_apart,
)
from engine.transports.rdma.verbs.fake_verbs import mapped_gid
from engine.transports.rdma.verbs.interface import LinkLayer


def roce(name: str, address: str, prefix: int = 96 + 24) -> RdmaAddress:
    return RdmaAddress(name, LinkLayer.ETHERNET, 0, mapped_gid(address), prefix)


def infiniband(name: str, subnet: int, guid: int) -> RdmaAddress:
    return RdmaAddress(name, LinkLayer.INFINIBAND, guid, bytes([0xFE, 0x80, *[0] * 5, subnet, *[0] * 7, guid]))


def test_what_is_told_is_read_again() -> None:
    devices = (roce("mlx5_0", "10.0.0.7"), infiniband("mlx5_1", 3, 9))
    text = to_text(devices)
    assert text == "mlx5_0/roce/0/::ffff:10.0.0.7,mlx5_1/ib/9/fe80:0:0:3::9"
    assert [(d.device, d.link, d.lid, d.gid) for d in from_text(text)] == [
        (d.device, d.link, d.lid, d.gid) for d in devices
    ]


@pytest.mark.parametrize(
    "text",
    ["", ",", "x", "a/roce/0", "a/tcp/0/::1", "a b/roce/0/::1", "a/roce/-1/::1", "a/roce/x/::1", "a/roce/0/1.2.3.4",
     "a/roce/0/::1/2", "/roce/0/::1", "a/roce/9999999/::1"],
)  # fmt: skip
def test_what_makes_no_sense_is_passed_over(text: str) -> None:
    assert from_text(text) == ()
    assert [d.device for d in from_text(f"{text},ok/roce/0/::ffff:1.2.3.4")] == ["ok"]


def test_a_peer_cannot_name_devices_without_end() -> None:
    assert len(from_text(",".join(f"d{n}/roce/0/::1" for n in range(10_000)))) == MAX_DEVICES


def test_gids_on_the_wire() -> None:
    gid = mapped_gid("10.77.0.1")
    assert gid_to_wire(gid) == "00:00:00:00:00:00:00:00:00:00:ff:ff:0a:4d:00:01"
    assert gid_from_wire(gid_to_wire(gid)) == gid
    for wrong in (None, 5, "", "00:01", ":".join(["0g"] * 16), ":".join(["100"] * 16)):
        assert gid_from_wire(wrong) is None


def test_what_can_have_a_path() -> None:
    assert reachable(roce("a", "10.0.0.1"), roce("b", "192.168.0.1"))
    assert not reachable(roce("a", "10.0.0.1"), RdmaAddress("b", LinkLayer.ETHERNET, 0, b"\xfe\x80" + bytes(14)))
    assert not reachable(roce("a", "10.0.0.1"), infiniband("b", 1, 1))
    assert reachable(infiniband("a", 1, 1), infiniband("b", 1, 2))
    assert not reachable(infiniband("a", 1, 1), infiniband("b", 2, 2))
    assert neighbours(roce("a", "10.0.0.1"), roce("b", "10.0.0.200"))
    assert not neighbours(roce("a", "10.0.0.1"), roce("b", "10.0.1.1"))
    assert not neighbours(roce("a", "10.0.0.1", prefix=0), roce("b", "10.0.0.200"))


def names(ours: list[RdmaAddress], theirs: list[RdmaAddress]) -> list[tuple[str, str]]:
    return [(one.device, other.device) for one, other in pair_up(ours, theirs)]


def test_devices_of_one_network_are_paired() -> None:
    ours = [roce("a0", "10.0.0.1"), roce("a1", "10.0.1.1")]
    theirs = [roce("b1", "10.0.1.2"), roce("b0", "10.0.0.2")]
    assert names(ours, theirs) == [("a0", "b0"), ("a1", "b1")]


def test_every_device_of_both_sides_is_used() -> None:
    ours = [roce(f"a{n}", f"10.0.0.{n + 1}") for n in range(2)]
    theirs = [roce(f"b{n}", f"10.0.0.{n + 101}") for n in range(5)]
    assert names(ours, theirs) == [("a0", "b0"), ("a1", "b1"), ("a0", "b2"), ("a1", "b3"), ("a0", "b4")]
    assert names(theirs, ours) == [("b0", "a0"), ("b1", "a1"), ("b2", "a0"), ("b3", "a1"), ("b4", "a0")]


def test_what_is_routed_is_used_where_no_network_is_shared() -> None:
    assert names([roce("a", "10.0.0.1")], [roce("b", "10.9.0.1")]) == [("a", "b")]
    # A neighbour of one of ours leaves nothing for a longer way to it.
    ours = [roce("a0", "10.0.0.1"), roce("a1", "10.0.1.1")]
    assert ("a0", "b") in names(ours, [roce("b", "10.0.0.2")])


def test_rails_are_bounded() -> None:
    many = [roce(f"a{n}", f"10.0.0.{n + 1}") for n in range(40)]
    assert len(pair_up(many, many)) == MAX_RAILS


def test_why_nothing_is_shared() -> None:
    a, b = [roce("a", "10.0.0.1")], [infiniband("b", 1, 1)]
    assert why_apart(a, []) == "the peer offers no RDMA device"
    assert why_apart([], a) == "this machine has no usable RDMA device"
    assert "no network has both a" in why_apart(a, b)
    assert not why_apart(a, a)
