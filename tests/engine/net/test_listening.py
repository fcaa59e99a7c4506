"""Which of this host's addresses an interface's name or a network means; nothing here depends on this machine's."""

from __future__ import annotations

import re
import socket

import pytest

from engine.errors import NoSuchAddress
from engine.net import listening
from engine.net.listening import Own, address_of, chosen, loopback, own_addresses

HOST = (
    Own("127.0.0.1", 8, "lo"),
    Own("::1", 128, "lo"),
    Own("fe80::9", 64, "eth0"),
    Own("fd00::5", 64, "eth0"),
    Own("10.1.0.5", 24, "eth0"),
    Own("10.1.0.6", 24, "eth0"),
    Own("10.2.0.5", 16, "ib0"),
    Own("fe80::a", 64, "wlan0"),
    Own("169.254.3.4", 16, "wlan0"),
)


@pytest.mark.parametrize(
    ("place", "address"),
    [
        ("eth0", "10.1.0.5"),
        ("ib0", "10.2.0.5"),
        ("lo", "127.0.0.1"),
        ("10.1.0.0/24", "10.1.0.5"),
        ("10.1.0.6/24", "10.1.0.6"),
        ("10.1.0.200/24", "10.1.0.5"),
        ("10.0.0.0/8", "10.1.0.5"),
        ("10.2.0.0/16", "10.2.0.5"),
        ("0.0.0.0/0", "10.1.0.5"),
        ("fd00::/64", "fd00::5"),
        ("127.0.0.0/8", "127.0.0.1"),
        ("10.1.0.0/255.255.255.0", "10.1.0.5"),
    ],
)
def test_a_place_means_an_address_of_this_host(place: str, address: str) -> None:
    assert chosen(place, HOST) == address


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("10.9.0.0/24", "no address of this host is in 10.9.0.0/24; it has fd00::5 (eth0), 10.1.0.5 (eth0)"),
        ("fe80::/10", "no address of this host is in fe80::/10; it has fe80::9 (eth0), fe80::a (wlan0)"),
        (
            "wlan0",
            "interface wlan0 has no address that others can reach; it has fe80::a (wlan0), 169.254.3.4 (wlan0)",
        ),
    ],
)
def test_a_place_without_an_address_is_refused_with_what_there_is(place: str, reason: str) -> None:
    with pytest.raises(NoSuchAddress, match=re.escape(f"cannot listen on {place}: {reason}")):
        chosen(place, HOST)


def test_an_interface_without_any_address() -> None:
    with pytest.raises(NoSuchAddress, match=r"is in 10\.3\.0\.0/16; it has fd00::5 \(eth0\)$"):
        chosen("10.3.0.0/16", HOST[2:4])
    with pytest.raises(NoSuchAddress, match=r"interface down0 has no address that others can reach$"):
        chosen("down0", ())


def test_hosts_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "own_addresses", lambda: HOST)
    for host in ("10.7.7.7", "::", "0.0.0.0", "", "a.host.invalid", "fe80::1%eth0"):
        assert address_of(host) == host
    assert address_of("10.1.0.0/24") == "10.1.0.5"
    assert address_of("lo") == "127.0.0.1", "this machine's loopback interface has that name, too"


def test_the_loopback_of_a_host_with_ipv6_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"::1"}
    monkeypatch.setattr(listening, "_has", lambda _, address: address in there)
    assert (loopback(), address_of("127.0.0.1")) == ("::1", "::1")
    there.add("127.0.0.1")
    assert (loopback(), address_of("127.0.0.1")) == ("127.0.0.1", "127.0.0.1")
    there.clear()
    assert loopback() == "127.0.0.1", "where there is neither, the message names the one that people know"


def test_a_family_that_the_kernel_has_not_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(listening.socket, "socket", refuse)
    assert not listening._has(socket.AF_INET, "127.0.0.1")


def test_this_machine_has_a_loopback() -> None:
    own = own_addresses()
    if not own:
        pytest.skip("the kernel does not tell its addresses here")
    assert any(each.address in {"127.0.0.1", "::1"} and not each.reachable and not each.bridge for each in own)
