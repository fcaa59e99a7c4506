"""The topology of this machine, read from sysfs and, for addresses and routes, from the kernel.

Sources: the kernel's ``Documentation/ABI`` (``testing/sysfs-class-net``, ``stable/sysfs-class-infiniband``,
``stable/sysfs-devices-node``, ``testing/sysfs-bus-pci``). Whatever is missing or cannot be read is unknown, never an
error: containers hide parts of sysfs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.topology import netlink
from engine.topology.matrix import natural
from engine.topology.model import Address, Gpu, Nic, NumaNode, RdmaDevice, RdmaPort, Route, Topology

SYSFS = Path("/sys")

DISPLAY_CLASS = "0x03"
"""The PCI base class of display controllers, GPUs without an output among them."""

GPU_VENDORS = {"0x10de": ("cuda", "NVIDIA"), "0x1002": ("hip", "AMD")}
"""PCI vendor to upstream's prefix and a name. A server's management controller has a display class, too."""

MAX_TEXT = 4096
"""Bytes of one attribute: sysfs has no longer ones."""

_UP, _LOOPBACK = 0x1, 0x8
_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.IGNORECASE)
_PCI_ROOT = re.compile(r"pci[0-9a-f]{4,}:[0-9a-f]{2}", re.IGNORECASE)
_RATE = re.compile(r"([0-9.]+) Gb/sec")


def discover(
    root: Path = SYSFS,
    *,
    addresses: Callable[[], dict[int, tuple[Address, ...]]] = netlink.addresses,
    routes: Callable[[], tuple[Route, ...]] = netlink.routes,
) -> Topology:
    """What this machine has; ``root`` is where sysfs is mounted. Takes some milliseconds, and raises nothing."""
    numa = tuple(_numa(root))
    # A machine of one node reports -1 for its devices, or nothing at all.
    only = numa[0].number if len(numa) == 1 else None
    found = addresses()
    return Topology(
        numa=numa,
        nics=tuple(_nic(entry, found, only) for entry in _entries(root / "class" / "net") if _is_nic(entry)),
        rdma=tuple(_rdma(entry, only) for entry in _entries(root / "class" / "infiniband")),
        gpus=tuple(_gpus(root, only)),
        routes=routes(),
    )


def _numa(root: Path) -> Iterator[NumaNode]:
    entries = [e for e in _entries(root / "devices" / "system" / "node") if re.fullmatch("node[0-9]+", e.name)]
    numbers = [int(entry.name[4:]) for entry in entries]
    for number, entry in zip(numbers, entries, strict=True):
        far = [int(word) for word in _text(entry / "distance").split() if word.isdigit()]
        # The file lists online nodes in order, which are those that have a directory.
        yield NumaNode(number, dict(zip(numbers, far, strict=False)) if len(far) == len(numbers) else {number: 10})


def _is_nic(entry: Path) -> bool:
    return (entry / "ifindex").exists()


def _nic(entry: Path, addresses: dict[int, tuple[Address, ...]], only: int | None) -> Nic:
    index = _number(entry / "ifindex") or 0
    flags = _number(entry / "flags") or 0
    speed = _number(entry / "speed")
    device = _device(entry)
    path = _pci_path(device)
    return Nic(
        name=entry.name,
        index=index,
        up=bool(flags & _UP) and _text(entry / "operstate") in {"up", "unknown"},
        loopback=bool(flags & _LOOPBACK),
        speed=speed if speed and speed > 0 else None,
        numa=_node_of(device, only),
        pci=path[-1] if path else "",
        mac=_text(entry / "address"),
        mtu=_number(entry / "mtu") or 0,
        addresses=addresses.get(index, ()),
        path=path,
    )


def _rdma(entry: Path, only: int | None) -> RdmaDevice:
    device = _device(entry)
    ports = []
    for port in _entries(entry / "ports"):
        rate = _RATE.match(_text(port / "rate"))
        ports.append(
            RdmaPort(
                number=int(port.name) if port.name.isdigit() else 0,
                # Its number, a colon, its name.
                state=_text(port / "state").partition(": ")[2],
                link_layer=_text(port / "link_layer"),
                speed=int(float(rate[1]) * 1000) if rate else None,
            )
        )
    netdevs = {each.name for each in _entries(entry / "device" / "net")}
    # A software device (rxe, siw) has no hardware of its own; it names the interface that it rides on.
    netdevs |= {name for name in (_text(entry / "parent"), *_gid_netdevs(entry)) if name}
    return RdmaDevice(
        name=entry.name,
        numa=_node_of(device, only),
        path=_pci_path(device),
        ports=tuple(ports),
        netdevs=tuple(sorted(netdevs, key=natural)),
    )


def _gid_netdevs(entry: Path) -> Iterator[str]:
    for port in _entries(entry / "ports"):
        for netdev in _entries(port / "gid_attrs" / "ndevs"):
            yield _text(netdev)


def _gpus(root: Path, only: int | None) -> Iterator[Gpu]:
    counts: dict[str, int] = {}
    for entry in _entries(root / "bus" / "pci" / "devices"):
        known = GPU_VENDORS.get(_text(entry / "vendor").lower())
        if known is None or not _text(entry / "class").startswith(DISPLAY_CLASS):
            continue
        prefix, vendor = known
        number = counts[prefix] = counts.get(prefix, -1) + 1
        device = entry.resolve()
        yield Gpu(f"{prefix}:{number}", vendor, _node_of(device, only), _pci_path(device))


def _device(entry: Path) -> Path | None:
    """The directory of the hardware behind an entry of a class."""
    try:
        return (entry / "device").resolve(strict=True)
    except OSError:
        return None


def _node_of(device: Path | None, only: int | None) -> int | None:
    """The NUMA node of a device: its own, or that of the nearest bus above it that tells one."""
    if device is None:
        return None
    for place in (device, *device.parents):
        if place.name == "devices":
            break
        number = _number(place / "numa_node")
        if number is not None:
            return number if number >= 0 else only
    return only


def _pci_path(device: Path | None) -> tuple[str, ...]:
    """The PCI root, the bridges and the device itself, outermost first; empty for what is not on PCI."""
    parts = () if device is None else device.parts
    return tuple(part.lower() for part in parts if _PCI_ADDRESS.fullmatch(part) or _PCI_ROOT.fullmatch(part))


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir(), key=lambda entry: natural(entry.name))
    except OSError:
        return []


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_TEXT).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _number(file: Path) -> int | None:
    try:
        return int(_text(file), 0)
    except ValueError:
        return None
