"""What others are told, and why they may not reach it. Hosts are made up; no name is looked up but this machine's own."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping

import pytest

from engine.errors import NoSuchAddress
from engine.net import published as module
from engine.net.listening import Own
from engine.net.published import DEFAULT_ROUTE, Server, doubts, local_address, on_this_host, published, told

LO = Own("127.0.0.1", 8, "lo")
ETH = Own("10.1.0.5", 24, "eth0")
ETH6 = Own("fd00::5", 64, "eth0")
WLAN = Own("192.168.7.2", 24, "wlan0")
DOCKER = Own("172.17.0.1", 16, "docker0", bridge=True)
LINK = Own("fe80::9", 64, "eth0")

ETCD, ETCD6, LOCAL = ("10.1.0.1", 2379), ("fd00::1", 2379), ("127.0.0.1", 2379)

V4, V6 = socket.AF_INET, socket.AF_INET6


def ways(**found: str) -> module.Towards:
    """Which local address leads where: by the names below, each for its family."""
    named: Mapping[str, tuple[Server, int]] = {
        "etcd": (ETCD, V4),
        "etcd6": (ETCD6, V6),
        "local": (LOCAL, V4),
        "default": (DEFAULT_ROUTE[V4], V4),
        "default6": (DEFAULT_ROUTE[V6], V6),
    }
    routes = {named[name]: address for name, address in found.items()}
    return lambda server, family: routes.get((server, family), "")


@pytest.mark.parametrize(
    ("host", "servers", "own", "towards", "address"),
    [
        ("0.0.0.0", [ETCD], [LO, ETH, WLAN], ways(etcd="10.1.0.5"), "10.1.0.5"),
        ("0.0.0.0", [ETCD], [LO, ETH, WLAN], ways(etcd="10.1.0.5", default="192.168.7.2"), "10.1.0.5"),
        ("0.0.0.0", [LOCAL, ETCD], [LO, ETH], ways(local="127.0.0.1", etcd="10.1.0.5"), "10.1.0.5"),
        ("::", [ETCD6], [LO, ETH, ETH6], ways(etcd6="fd00::5"), "fd00::5"),
        ("::", [ETCD], [LO, ETH, ETH6], ways(etcd="10.1.0.5"), "10.1.0.5"),
        ("::", [ETCD6], [ETH6], ways(etcd6="fd00::5"), "fd00::5"),
        ("", [ETCD], [LO, ETH], ways(etcd="10.1.0.5"), "10.1.0.5"),
        ("0.0.0.0", [LOCAL], [LO, ETH, WLAN], ways(local="127.0.0.1", default="192.168.7.2"), "192.168.7.2"),
        ("0.0.0.0", [LOCAL], [LO, ETH, DOCKER], ways(local="127.0.0.1"), "10.1.0.5"),
        ("::", [], [LO, ETH6, LINK], ways(), "fd00::5"),
        ("::", [], [LO, ETH, ETH6], ways(), "10.1.0.5"),
        ("0.0.0.0", [], [LO, ETH6], ways(), ""),
        ("0.0.0.0", [], [LO], ways(), ""),
        ("0.0.0.0", [], [], ways(), ""),
    ],
)
def test_the_rule(host: str, servers: list[Server], own: list[Own], towards: module.Towards, address: str) -> None:
    assert told(host, servers, own, towards) == address


def test_nothing_is_guessed() -> None:
    with pytest.raises(NoSuchAddress, match=r"it is not plain which .* 10\.1\.0\.5 \(eth0\), 192\.168\.7\.2 \(wlan0\)"):
        told("0.0.0.0", [LOCAL], [LO, ETH, WLAN], ways(local="127.0.0.1"))
    with pytest.raises(NoSuchAddress, match=r"there is no way from here to 10\.1\.0\.1:2379"):
        told("::", [ETCD], [LO, ETH], ways(default="10.1.0.5"))
    with pytest.raises(NoSuchAddress, match=r"there is no IPv4 way from here to \[fd00::1\]:2379"):
        told("0.0.0.0", [ETCD6], [LO, ETH], ways(etcd6="fd00::5"))


def test_an_address_that_was_given_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert published("10.9.9.9", [ETCD]) == "10.9.9.9"
    assert published("a.host.invalid") == "a.host.invalid"
    monkeypatch.setattr(module, "own_addresses", lambda: (LO,))
    monkeypatch.setattr(module, "local_address", lambda *_: "")
    monkeypatch.setattr(module, "loopback", lambda: "::1")
    assert published("::") == "::1", "a host without a network has nobody else to tell"


def test_the_way_to_a_server_is_found_without_a_word_to_it() -> None:
    assert local_address(("127.0.0.1", 9), V4) == "127.0.0.1"
    assert local_address(("127.0.0.1", 9), 0) == "127.0.0.1"
    assert local_address(("127.0.0.1", 9), V6) == ""
    assert local_address(("no.such.host.invalid", 9), 0) == ""
    assert local_address(("a..b", 9), 0) == ""


def test_servers_of_this_host() -> None:
    assert on_this_host([])
    assert on_this_host([LOCAL, ("::1", 1)])
    assert not on_this_host([LOCAL, ETCD])


OWN = (LO, ETH, LINK, DOCKER)
HAS = r".*; this host has 10\.1\.0\.5 \(eth0\)$"


@pytest.mark.parametrize(
    ("address", "host", "servers", "doubt"),
    [
        ("127.0.1.1", "127.0.1.1", [ETCD], "listens on 127.0.1.1, which is loopback: no other machine can get" + HAS),
        ("10.1.0.5", "127.0.0.1", [ETCD], "which is loopback, though others are told 10.1.0.5: no other machine" + HAS),
        (
            "10.1.0.5",
            "127.0.0.1",
            [LOCAL],
            "which is loopback, though others are told 10.1.0.5: no other machine" + HAS,
        ),
        ("0.0.0.0", "0.0.0.0", [ETCD], "0.0.0.0, which stands for all addresses: nobody can connect" + HAS),
        ("::", "::", [], "::, which stands for all addresses" + HAS),
        ("224.0.0.1", "0.0.0.0", [ETCD], "224.0.0.1, which is a multicast address" + HAS),
        ("127.0.0.1", "0.0.0.0", [ETCD], "told 127.0.0.1, which is each machine's own loopback" + HAS),
        ("127.0.0.1", "0.0.0.0", [LOCAL], "told 127.0.0.1, which is each machine's own loopback" + HAS),
        ("localhost", "0.0.0.0", [ETCD], "told localhost, which is each machine's own loopback" + HAS),
        ("fe80::9", "::", [ETCD], "told fe80::9, which is link-local" + HAS),
        ("fe80::9%eth0", "fe80::9%eth0", [ETCD], "told fe80::9%eth0, which is link-local" + HAS),
        ("169.254.3.4", "0.0.0.0", [ETCD], "told 169.254.3.4, which is link-local" + HAS),
        ("10.77.0.1", "0.0.0.0", [ETCD], "told 10.77.0.1, which no interface of this host has" + HAS),
        ("10.1.0.5", "172.17.0.1", [ETCD], "told 10.1.0.5, and nobody listens there: this node listens on 172.17.0.1"),
        ("172.17.0.1", "172.17.0.1", [ETCD], "told 172.17.0.1, of the bridge docker0: other hosts have the same" + HAS),
        ("no.such.host.invalid", "0.0.0.0", [ETCD], "the name 'no.such.host.invalid', which does not resolve" + HAS),
    ],
)
def test_what_cannot_have_been_meant_is_told(
    address: str, host: str, servers: list[Server], doubt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "own_addresses", lambda: OWN)
    monkeypatch.setattr(module, "local_address", lambda *_: "10.1.0.5")
    (found,) = doubts(address, host, servers)
    assert re.search(doubt, found), found


def test_ipv4s_wildcard_and_an_ipv6_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "own_addresses", lambda: (LO, ETH6))
    monkeypatch.setattr(module, "local_address", lambda *_: "")
    assert "0.0.0.0 takes IPv4 alone" in doubts("fd00::5", "0.0.0.0", [ETCD])[0]
    assert doubts("fd00::5", "::", [ETCD]) == []


@pytest.mark.parametrize(
    ("address", "host", "servers", "towards"),
    [
        ("10.1.0.5", "10.1.0.5", [ETCD], "10.1.0.5"),
        ("10.1.0.5", "0.0.0.0", [ETCD], "10.1.0.5"),
        ("127.0.0.1", "127.0.0.1", [LOCAL], "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", [], ""),
        ("172.17.0.1", "172.17.0.1", [("172.17.0.9", 2379)], "172.17.0.1"),
    ],
)
def test_what_is_well_raises_no_doubt(
    address: str, host: str, servers: list[Server], towards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "own_addresses", lambda: OWN)
    monkeypatch.setattr(module, "local_address", lambda *_: towards)
    assert doubts(address, host, servers) == []


def test_a_machine_that_has_only_its_loopback_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "own_addresses", lambda: (LO,))
    assert doubts("127.0.0.1", "0.0.0.0", []) == []
