"""The topology as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a network card, and the length of its network's prefix."""

    address: str
    prefix: int

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix}"


@dataclass(frozen=True, slots=True)
class Nic:
    """One network interface.

    ``speed`` is in Mbit/s, None where the driver does not tell. ``numa`` is None where it is unknown or there is no
    device behind it; ``pci`` is the device's address there, or empty, and ``path`` the bridges and the device that lead
    to it. ``up`` says that it is on and has a link.
    """

    name: str
    index: int
    up: bool
    loopback: bool = False
    speed: int | None = None
    numa: int | None = None
    pci: str = ""
    mac: str = ""
    mtu: int = 0
    addresses: tuple[Address, ...] = ()
    path: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON types; ``speed_mbps`` in Mbit/s."""
        return {
            "name": self.name,
            "up": self.up,
            "loopback": self.loopback,
            "speed_mbps": self.speed,
            "numa": self.numa,
            "pci": self.pci,
            "mac": self.mac,
            "mtu": self.mtu,
            "addresses": [str(address) for address in self.addresses],
        }


@dataclass(frozen=True, slots=True)
class RdmaPort:
    """One port: ``state`` (``ACTIVE``, ``DOWN``...), ``link_layer`` (``InfiniBand``, ``Ethernet``), speed in Mbit/s."""

    number: int
    state: str
    link_layer: str
    speed: int | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON types; ``speed_mbps`` in Mbit/s."""
        return {
            "port": self.number,
            "state": self.state,
            "link_layer": self.link_layer,
            "speed_mbps": self.speed,
        }


@dataclass(frozen=True, slots=True)
class RdmaDevice:
    """One RDMA device. ``path`` are the PCI bridges and the device that lead to it; ``netdevs`` its interfaces."""

    name: str
    numa: int | None = None
    path: tuple[str, ...] = ()
    ports: tuple[RdmaPort, ...] = ()
    netdevs: tuple[str, ...] = ()

    @property
    def active(self) -> bool:
        """Whether any port carries traffic."""
        return any(port.state == "ACTIVE" for port in self.ports)

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "name": self.name,
            "active": self.active,
            "numa": self.numa,
            "pci": self.path[-1] if self.path else "",
            "ports": [port.to_json() for port in self.ports],
            "netdevs": list(self.netdevs),
        }


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU under upstream's name (``cuda:0``: NVIDIA, ``hip:0``: AMD), numbered by PCI address."""

    name: str
    vendor: str
    numa: int | None = None
    path: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "name": self.name,
            "vendor": self.vendor,
            "numa": self.numa,
            "pci": self.path[-1] if self.path else "",
        }


@dataclass(frozen=True, slots=True)
class NumaNode:
    """One NUMA node and its distance to each other one, as the firmware tells it (10: itself)."""

    number: int
    distances: Mapping[int, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {"node": self.number, "distances": {str(node): far for node, far in sorted(self.distances.items())}}


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the main table: ``destination`` as ``ADDRESS/PREFIX``, through interface ``index``.

    ``gateway`` is empty where the destination is on the interface's own network.
    """

    destination: str
    index: int
    gateway: str = ""
    metric: int = 0


@dataclass(frozen=True)
class Topology:
    """Everything that was found."""

    numa: tuple[NumaNode, ...] = ()
    nics: tuple[Nic, ...] = ()
    rdma: tuple[RdmaDevice, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    routes: tuple[Route, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON types: numa, nics, rdma, gpus. Routes are left out: ``ip route`` shows them."""
        return {
            "numa": [node.to_json() for node in self.numa],
            "nics": [nic.to_json() for nic in self.nics],
            "rdma": [device.to_json() for device in self.rdma],
            "gpus": [gpu.to_json() for gpu in self.gpus],
        }
