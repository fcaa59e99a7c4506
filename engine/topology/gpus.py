"""How near GPUs are to one another and to network cards, by where they stand on PCI. Pure.

The words for the way between two are those of ``nvidia-smi topo -m``, which people know.
"""

from __future__ import annotations

from typing import Protocol

from engine.topology.matrix import distance, natural
from engine.topology.model import Gpu, Topology

PIX, PXB, PHB, NODE, SYS = "PIX", "PXB", "PHB", "NODE", "SYS"
"""One PCI switch; several; a processor's PCI root; from root to root of a NUMA node; from node to node."""

BELOW_ONE_SWITCH = 2
"""A switch's port, and the device: what two paths do not share below one switch."""


class OnPci(Protocol):
    """A device with its NUMA node, and the PCI bridges that lead to it."""

    @property
    def numa(self) -> int | None:
        """None where it is not known."""

    @property
    def path(self) -> tuple[str, ...]:
        """Root, bridges and the device; empty where it is on no PCI."""


def way(one: OnPci, other: OnPci) -> str:
    """The longest part of the way between two devices; empty where it is unknown."""
    if not one.path or not other.path:
        return ""
    shared = 0
    for left, right in zip(one.path, other.path, strict=False):
        if left != right:
            break
        shared += 1
    if shared == 0:
        if one.numa is None or other.numa is None:
            return ""
        return NODE if one.numa == other.numa else SYS
    if shared == 1:
        return PHB
    rest = max(len(one.path), len(other.path)) - shared
    return PIX if rest <= BELOW_ONE_SWITCH else PXB


def nearest_nics(topology: Topology, gpu: Gpu) -> list[str]:
    """The network cards that are up and nearest to a GPU: by NUMA node, then by the way between them."""
    order = [PIX, PXB, PHB, NODE, SYS, ""]
    far = {
        nic.name: (distance(topology, gpu.numa, nic.numa), order.index(way(gpu, nic)))
        for nic in topology.nics
        if nic.up and nic.path
    }
    nearest = min(far.values(), default=None)
    return sorted((name for name in far if far[name] == nearest), key=natural)
