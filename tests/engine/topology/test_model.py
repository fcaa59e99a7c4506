from __future__ import annotations

import json

from engine.topology.model import Address, Gpu, Nic, NumaNode, RdmaDevice, RdmaPort, Route, Topology

DEVICE = RdmaDevice(
    "mlx5_0",
    numa=1,
    path=("0000:00:01.0", "0000:17:00.0"),
    ports=(RdmaPort(1, "DOWN", "Ethernet"), RdmaPort(2, "ACTIVE", "Ethernet", 100_000)),
    netdevs=("eth0",),
)


def test_a_device_is_active_with_any_of_its_ports() -> None:
    assert DEVICE.active
    assert not RdmaDevice("x", ports=DEVICE.ports[:1]).active
    assert not RdmaDevice("x").active


def test_a_device_is_told_by_the_last_of_its_path() -> None:
    assert DEVICE.to_json()["pci"] == "0000:17:00.0"
    assert RdmaDevice("x").to_json()["pci"] == ""
    assert Gpu("cuda:0", "NVIDIA", path=("a", "b")).to_json()["pci"] == "b"
    assert Gpu("cuda:0", "NVIDIA").to_json()["pci"] == ""


def test_what_is_unknown_is_null_and_never_zero() -> None:
    nic = Nic("eth0", 2, up=False).to_json()
    assert (nic["speed_mbps"], nic["numa"]) == (None, None)
    assert RdmaPort(1, "DOWN", "Ethernet").to_json()["speed_mbps"] is None
    assert Gpu("hip:0", "AMD").to_json()["numa"] is None


def test_a_topology_is_json_as_it_stands() -> None:
    found = Topology(
        numa=(NumaNode(1, {1: 10, 0: 21}), NumaNode(0)),
        nics=(Nic("eth0", 2, up=True, speed=100_000, addresses=(Address("10.0.0.1", 24), Address("fe80::1", 64))),),
        rdma=(DEVICE,),
        gpus=(Gpu("cuda:0", "NVIDIA", numa=0, path=("0000:18:00.0",)),),
        routes=(Route("0.0.0.0/0", 2, "10.0.0.254"),),
    )
    data = json.loads(json.dumps(found.to_json()))
    assert data == found.to_json()
    assert set(data) == {"numa", "nics", "rdma", "gpus"}
    assert data["nics"][0]["addresses"] == ["10.0.0.1/24", "fe80::1/64"]
    assert list(data["numa"][0]["distances"].items()) == [("0", 21), ("1", 10)]
