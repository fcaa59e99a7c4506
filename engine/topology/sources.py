"""From which of our addresses to connect to a peer, so that several network cards carry the bytes.

The kernel takes one card for all connections to a peer. Binding each connection to an address of another card spreads
what comes back over them: the peer answers to that address.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable

from engine.topology.model import Nic, Route, Topology
from engine.topology.sysfs import discover

MIN_SPEED_SHARE = 0.5
"""A card slower than this share of the fastest is left out: with an equal share of the connections it slows all."""

MAX_AGE = 60.0
"""Seconds after which the topology is read again."""

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def source_addresses(topology: Topology, peer: str) -> list[str]:
    """Local addresses to bind in turn, one for each card that reaches ``peer`` (an IP address) equally well. Pure.

    Those cards are all whose own network the peer is in, else those whose routes to it are equal in prefix and metric.
    Empty where there is nothing to choose: fewer than two cards, a peer on this machine, or one that is no address.
    """
    try:
        target = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return []
    mapped = getattr(target, "ipv4_mapped", None)
    target = mapped or target
    if target.is_loopback or target.is_link_local or target.is_unspecified or _is_own(topology, target):
        return []
    by_index = {nic.index: nic for nic in topology.nics if nic.up and not nic.loopback}
    found: dict[str, tuple[str, int | None]] = {}
    for route in _best(topology.routes, target, set(by_index)):
        nic = by_index[route.index]
        address = _address(nic, target)
        if address:
            found.setdefault(nic.name, (address, nic.speed))
    fastest = max((speed for _, speed in found.values() if speed), default=0)
    kept = [address for address, speed in found.values() if speed is None or speed >= fastest * MIN_SPEED_SHARE]
    return kept if len(kept) > 1 else []


def _best(routes: tuple[Route, ...], target: _Ip, usable: set[int]) -> list[Route]:
    """The routes that the kernel may take as well as another: the longest prefix, then on-link, then the metric."""
    matching: list[tuple[int, Route]] = []
    for route in routes:
        network = ipaddress.ip_network(route.destination, strict=False)
        if route.index in usable and network.version == target.version and target in network:
            matching.append((network.prefixlen, route))
    longest = max((prefix for prefix, _ in matching), default=0)
    best = [route for prefix, route in matching if prefix == longest]
    direct = [route for route in best if not route.gateway]
    if direct:
        return direct
    least = min((route.metric for route in best), default=0)
    return [route for route in best if route.metric == least]


def _address(nic: Nic, target: _Ip) -> str:
    """The card's address in the peer's network, or else its first of the peer's family that others can reach."""
    fallback = ""
    for each in nic.addresses:
        own = ipaddress.ip_interface(str(each))
        if own.version != target.version or own.ip.is_link_local:
            continue
        if target in own.network:
            return each.address
        fallback = fallback or each.address
    return fallback


def _is_own(topology: Topology, target: _Ip) -> bool:
    return any(ipaddress.ip_address(each.address) == target for nic in topology.nics for each in nic.addresses)


class SourceChoice:
    """Which address to bind next: round robin for each peer, without those that failed. Thread-safe."""

    def __init__(
        self, topology: Callable[[], Topology] = discover, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``topology`` is asked again after ``MAX_AGE`` by the ``clock``, since cards come and go."""
        self._ask = topology
        self._clock = clock
        self._lock = threading.Lock()
        self._read_at = 0.0
        self._topology: Topology | None = None
        self._turn: dict[str, int] = {}
        self._failed: set[tuple[str, str]] = set()

    def next(self, peer: str) -> str:
        """The address to bind for the next connection to ``peer`` (an IP address); empty: the kernel chooses."""
        if _is_loopback(peer):
            return ""
        with self._lock:
            now = self._clock()
            if self._topology is None or now - self._read_at > MAX_AGE:
                self._topology, self._read_at = self._ask(), now
                self._failed.clear()
            good = [each for each in source_addresses(self._topology, peer) if (peer, each) not in self._failed]
            if len(good) < 2:
                return ""
            turn = self._turn[peer] = self._turn.get(peer, -1) + 1
            return good[turn % len(good)]

    def failed(self, peer: str, source: str) -> None:
        """Do not bind ``source`` for ``peer`` until the topology is read again."""
        with self._lock:
            self._failed.add((peer, source))


def _is_loopback(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer.partition("%")[0]).is_loopback
    except ValueError:
        return False
