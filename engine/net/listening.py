"""Where to listen: which of this host's addresses a host, an interface's name or a network means.

One configuration file can serve all hosts then: ``ib0:7300`` or ``10.0.0.0/24:7300`` is another address on each.
What others are told of it is ``engine.net.published``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import NoSuchAddress
from engine.net.addresses import LOOPBACK, LOOPBACK_6, WILDCARDS, Ip, network
from engine.topology import netlink

MAX_SHOWN = 8
"""Addresses that a message lists."""

_SYSFS = Path("/sys/class/net")

_BRIDGE = re.compile(r"(docker|podman|virbr|lxcbr|lxdbr|incusbr|cni|cbr|br-[0-9a-f]{12}$)")
"""What container engines and hypervisors call the bridges that they make."""


@dataclass(frozen=True)
class Own:
    """One address of this host: ``interface`` has it, and ``prefix`` is the length of its network's."""

    address: str
    prefix: int
    interface: str
    bridge: bool = False

    @property
    def ip(self) -> Ip:
        """The address as such."""
        return ipaddress.ip_address(self.address)

    @property
    def reachable(self) -> bool:
        """Whether another host could reach it by this text alone."""
        return not self.ip.is_loopback and not self.ip.is_link_local

    def __str__(self) -> str:
        return f"{self.address} ({self.interface})"


def own_addresses() -> tuple[Own, ...]:
    """This host's usable addresses, in the kernel's order; none where it does not tell them."""
    found = []
    for index, each in sorted(netlink.addresses().items()):
        with contextlib.suppress(OSError):  # it went away a moment ago
            name = socket.if_indextoname(index)
            bridge = bool(_BRIDGE.match(name)) and (_SYSFS / name / "bridge").exists()
            found += [Own(one.address, one.prefix, name, bridge) for one in each]
    return tuple(found)


def address_of(host: str) -> str:
    """The address or name to bind for ``host``, which may be an interface's name or a network.

    Loopback is ``::1`` where there is no 127.0.0.1. Raises ``NoSuchAddress`` where this host has none.
    """
    if host == LOOPBACK:
        return loopback()
    if host in WILDCARDS or (network(host) is None and not _is_interface(host)):
        return host
    return chosen(host, own_addresses())


def chosen(host: str, own: Sequence[Own]) -> str:
    """The first address of an interface, or within a network, that others can reach; IPv4 before IPv6. Pure.

    The host's own address among them, for ``10.0.0.5/24``. Raises ``NoSuchAddress``.
    """
    within = network(host)
    if within is None:
        found = [each for each in own if each.interface == host]
        problem = f"interface {host} has no address that others can reach"
    else:
        found = [each for each in own if each.ip.version == within.version and each.ip in within]
        problem = f"no address of this host is in {within}"
    good = [each for each in found if each.reachable] or [each for each in found if each.ip.is_loopback]
    good.sort(key=lambda each: (not host.startswith(f"{each.address}/"), each.ip.version))
    if not good:
        listed = [str(each) for each in (found or own) if found or each.reachable]
        has = f"; it has {', '.join(listed[:MAX_SHOWN])}" if listed else ""
        raise NoSuchAddress(address=host, detail=problem + has)
    return good[0].address


def loopback() -> str:
    """This host's loopback address: ``127.0.0.1``, or ``::1`` on a host that has IPv6 alone."""
    return LOOPBACK if _has(socket.AF_INET, LOOPBACK) or not _has(socket.AF_INET6, LOOPBACK_6) else LOOPBACK_6


def _is_interface(host: str) -> bool:
    try:
        socket.if_nametoindex(host)
    except (OSError, UnicodeError, ValueError):
        return False
    return True


def _has(family: int, address: str) -> bool:
    """Whether this host has the address, for a moment's use of a datagram socket; nothing is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
