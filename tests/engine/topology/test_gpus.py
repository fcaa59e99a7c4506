from __future__ import annotations

import pytest

from engine.topology import Gpu, Nic, NumaNode, Topology, nearest_nics, way

ROOT = "pci0000:00"
SWITCH = (ROOT, "0000:00:01.0", "0000:01:00.0")
"""A root port, and the upper side of a switch."""


def gpu(*path: str, numa: int | None = 0) -> Gpu:
    return Gpu("cuda:0", "NVIDIA", numa, path)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (gpu(*SWITCH, "0000:02:00.0", "0000:03:00.0"), gpu(*SWITCH, "0000:02:01.0", "0000:04:00.0"), "PIX"),
        (gpu(*SWITCH, "0000:03:00.0"), gpu(*SWITCH, "0000:04:00.0"), "PIX"),
        (gpu(*SWITCH, "0000:02:00.0", "0000:03:00.0", "0000:05:00.0", "0000:06:00.0"),
         gpu(*SWITCH, "0000:02:01.0", "0000:04:00.0"), "PXB"),
        (gpu(*SWITCH, "0000:03:00.0"), gpu(ROOT, "0000:00:02.0", "0000:04:00.0"), "PHB"),
        (gpu(*SWITCH, "0000:03:00.0"), gpu("pci0000:40", "0000:40:01.0", "0000:41:00.0"), "NODE"),
        (gpu(*SWITCH, "0000:03:00.0"), gpu("pci0000:80", "0000:80:01.0", "0000:81:00.0", numa=1), "SYS"),
        (gpu(*SWITCH, "0000:03:00.0"), gpu("pci0000:80", "0000:80:01.0", "0000:81:00.0", numa=None), ""),
        (gpu(*SWITCH, "0000:03:00.0"), gpu(), ""),
    ],
)  # fmt: skip
def test_the_way_between_two(one: Gpu, other: Gpu, words: str) -> None:
    assert way(one, other) == way(other, one) == words


def nic(name: str, *path: str, numa: int | None = 0, up: bool = True) -> Nic:
    return Nic(name, 1, up, numa=numa, path=path)


def test_the_nearest_cards() -> None:
    far = nic("far", "pci0000:80", "0000:80:01.0", "0000:81:00.0", numa=1)
    root = nic("root", ROOT, "0000:00:05.0", "0000:05:00.0")
    beside = [nic(f"beside{n}", *SWITCH, "0000:02:02.0", f"0000:07:00.{n}") for n in (10, 2)]
    down = nic("down", *SWITCH, "0000:02:03.0", "0000:08:00.0", up=False)
    nodes = (NumaNode(0, {0: 10, 1: 21}), NumaNode(1, {0: 21, 1: 10}))
    found = gpu(*SWITCH, "0000:02:00.0", "0000:03:00.0")

    def nearest(*nics: Nic) -> list[str]:
        return nearest_nics(Topology(numa=nodes, nics=nics), found)

    assert nearest(far, root, *beside, down, nic("virtual")) == ["beside2", "beside10"]
    assert nearest(far, root) == ["root"]
    assert nearest(far) == ["far"]
    assert nearest(nic("virtual"), down) == []
