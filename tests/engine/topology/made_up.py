"""A made-up sysfs: two sockets with a card and two GPUs each, laid out as the kernel does, links included."""

from __future__ import annotations

import os
from pathlib import Path


def write(file: Path, text: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


def link(at: Path, to: Path) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(os.path.relpath(to, at.parent))


def pci(root: Path, *path: str, numa: int | None = None, **attributes: str) -> Path:
    """A PCI device below its root and bridges."""
    device = root.joinpath("devices", *path)
    device.mkdir(parents=True, exist_ok=True)
    if numa is not None:
        write(device / "numa_node", numa)
    for name, value in attributes.items():
        write(device / name.rstrip("_"), value)
    link(root / "bus" / "pci" / "devices" / path[-1], device)
    return device


def nic(root: Path, name: str, index: int, device: Path | None, *, speed: object = "", flags: str = "0x1003",
        state: str = "up", mtu: int = 1500) -> None:  # fmt: skip
    entry = (device if device is not None else root / "devices" / "virtual") / "net" / name
    for key, value in {"ifindex": index, "flags": flags, "operstate": state, "mtu": mtu, "speed": speed,
                       "address": f"02:00:00:00:00:{index:02x}"}.items():  # fmt: skip
        write(entry / key, value)
    if device is not None:
        link(entry / "device", device)
    link(root / "class" / "net" / name, entry)


def rdma(root: Path, name: str, device: Path, *, state: str = "4: ACTIVE", rate: str = "400 Gb/sec (4X NDR)",
         layer: str = "InfiniBand") -> None:  # fmt: skip
    entry = device / "infiniband" / name
    for key, value in {"state": state, "rate": rate, "link_layer": layer}.items():
        write(entry / "ports" / "1" / key, value)
    link(entry / "device", device)
    link(root / "class" / "infiniband" / name, entry)


def nodes(root: Path, *distances: str) -> None:
    for number, line in enumerate(distances):
        write(root / "devices" / "system" / "node" / f"node{number}" / "distance", line)
    write(root / "devices" / "system" / "node" / "online", f"0-{len(distances) - 1}")


def server(root: Path) -> Path:
    """Two sockets; each has an RDMA card and a GPU behind one PCI switch, and a GPU alone; card and GPUs of node 1 too."""
    nodes(root, "10 21", "21 10")
    for numa, bus in ((0, "00"), (1, "80")):
        complex_, port = f"pci0000:{bus}", f"0000:{bus}:01.0"
        base = int(bus, 16)
        card = pci(root, complex_, port, f"0000:{base + 1:02x}:00.0", f"0000:{base + 2:02x}:00.0", numa=numa,
                   class_="0x020700", vendor="0x15b3")  # fmt: skip
        pci(root, complex_, port, f"0000:{base + 1:02x}:00.0", f"0000:{base + 3:02x}:00.0", numa=numa,
            class_="0x030200", vendor="0x10de")  # fmt: skip
        pci(root, complex_, f"0000:{bus}:02.0", f"0000:{base + 4:02x}:00.0", numa=numa, class_="0x030200",
            vendor="0x10de")  # fmt: skip
        rdma(root, f"mlx5_{numa}", card)
        nic(root, f"ib{numa}", 2 + numa, card, speed=400000, mtu=4092)
    # A management controller's display, which is no GPU, and a card behind virtio, which has no numa_node of its own.
    pci(root, "pci0000:00", "0000:00:1f.0", numa=0, class_="0x030000", vendor="0x1a03")
    virtio = pci(root, "pci0000:00", "0000:00:05.0", numa=0, class_="0x020000", vendor="0x1af4")
    (virtio / "virtio2").mkdir()
    nic(root, "eth0", 10, virtio / "virtio2", speed=-1)
    nic(root, "lo", 1, None, flags="0x9", state="unknown")
    nic(root, "dummy0", 11, None, flags="0x82", state="down")
    write(root / "class" / "net" / "bonding_masters", "")
    return root
