"""Which devices are used, by which GID, and why the others are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.config.settings import EngineSettings
from engine.errors import TransportUnavailable
from engine.topology.matrix import Devices
from engine.topology.model import Address, Nic, NumaNode, RdmaDevice, RdmaPort, Topology
from engine.transports.rdma.nics import Nics, choose_gid, inspect, no_device, preferences, wanted_devices
from engine.transports.rdma.verbs.fake_verbs import Fabric, FakeDevice, FakeVerbs, mapped_gid
from engine.transports.rdma.verbs.interface import Gid, GidType, LinkLayer

LOCAL = Gid(0, b"\xfe\x80" + bytes(14), GidType.ROCE_V1)
LOCAL_V2 = Gid(1, b"\xfe\x80" + bytes(14), GidType.ROCE_V2)
IPV4_V1 = Gid(2, mapped_gid("10.0.0.1"), GidType.ROCE_V1)
IPV4_V2 = Gid(3, mapped_gid("10.0.0.1"), GidType.ROCE_V2)
IPV6_V2 = Gid(4, b"\x20\x01" + bytes(14), GidType.ROCE_V2)


def test_the_gid_is_roce_v2_over_ipv4_where_there_is_one() -> None:
    assert choose_gid([LOCAL, LOCAL_V2, IPV6_V2, IPV4_V1, IPV4_V2], LinkLayer.ETHERNET) is IPV4_V2
    assert choose_gid([LOCAL, LOCAL_V2, IPV4_V1, IPV6_V2], LinkLayer.ETHERNET) is IPV6_V2
    assert choose_gid([LOCAL, LOCAL_V2, IPV4_V1], LinkLayer.ETHERNET) is LOCAL_V2
    assert choose_gid([LOCAL, IPV4_V1], LinkLayer.ETHERNET) is IPV4_V1
    assert choose_gid([], LinkLayer.ETHERNET) is None


def test_the_gid_that_is_asked_for_counts() -> None:
    assert choose_gid([LOCAL, IPV4_V2], LinkLayer.ETHERNET, 0) is LOCAL
    assert choose_gid([LOCAL, IPV4_V2], LinkLayer.ETHERNET, 9) is None


def test_on_infiniband_it_is_the_first() -> None:
    first, second = Gid(0, bytes(15) + b"1", GidType.INFINIBAND), Gid(1, bytes(15) + b"2", GidType.INFINIBAND)
    assert choose_gid([second, first], LinkLayer.INFINIBAND) is first


def test_devices_that_a_setting_names() -> None:
    assert wanted_devices(None) == wanted_devices(" , ") == frozenset()
    assert wanted_devices("mlx5_0, mlx5_1") == {"mlx5_0", "mlx5_1"}


def test_reasons_are_told(fabric: Fabric) -> None:
    fabric.devices["a0"].state = "DOWN"
    verbs = FakeVerbs(fabric)
    reasons = {each.name: each.reason for each in inspect(verbs, EngineSettings(), topology=Topology)}
    assert reasons == {"a0": "its port is DOWN, not ACTIVE", "b0": ""}
    for settings, reason in (
        (EngineSettings(ib_port=2), "it has 1 ports, and no port 2"),
        (EngineSettings(gid_index=7), "it has no GID at index 7 (MC_GID_INDEX)"),
        (EngineSettings(device_name="other"), "the setting device_name names others"),
    ):
        assert inspect(verbs, settings, topology=Topology)[1].reason == reason
    with pytest.raises(TransportUnavailable, match="a0: its port is DOWN, not ACTIVE; b0: it has no GID"):
        Nics(verbs, EngineSettings(gid_index=7), topology=Topology)
    assert no_device([]) == "this machine has no RDMA device"
    assert fabric.left == 0


def topology(*numa: int) -> Callable[[], Topology]:
    """Devices a0, b0, ... on these NUMA nodes of a machine that has two."""
    port = RdmaPort(1, "ACTIVE", "Ethernet")
    devices = tuple(RdmaDevice(name, node, (), (port,)) for name, node in zip(("a0", "b0"), numa, strict=True))
    nodes = (NumaNode(0, {0: 10, 1: 21}), NumaNode(1, {0: 21, 1: 10}))
    nic = Nic("eth0", 2, up=True, addresses=(Address("10.1.0.1", 16),))
    return lambda: Topology(numa=nodes, rdma=devices, nics=(nic,))


def test_the_matrix_orders_devices_and_numbers_them_as_upstream_does(fabric: Fabric) -> None:
    nics = Nics(FakeVerbs(fabric), EngineSettings(), topology=topology(1, 0))
    assert nics.matrix == {"cpu:0": Devices(("b0",), ("a0",)), "cpu:1": Devices(("a0",), ("b0",))}
    assert [nic.name for nic in nics.in_order] == ["b0", "a0"]
    assert nics["a0"].report.numa == 1
    nics.close()
    assert fabric.left == 0


def test_a_matrix_file_says_what_is_preferred(fabric: Fabric, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"cpu:0": [["b0"], ["a0"]]}')
    settings = EngineSettings(topology_file=tmp_path / "m.json")
    nics = Nics(FakeVerbs(fabric), settings, topology=topology(0, 0))
    assert [(nic.name, nic.report.preferred) for nic in nics] == [("b0", True), ("a0", False)]
    assert nics.text.startswith("b0/")
    nics.close()


def test_without_a_matrix_all_are_preferred() -> None:
    assert preferences(["x", "y"], {}) == {"x": True, "y": True}
    assert preferences(["x", "y"], {"cpu:0": Devices(("x",), ("y",)), "cuda:0": Devices(("y",), ())}) == {
        "x": True,
        "y": False,
    }


def test_the_network_of_a_gid_is_that_of_its_interface(fabric: Fabric) -> None:
    fabric.devices["a0"] = FakeDevice("a0", "10.1.0.1", gids=[Gid(1, mapped_gid("10.1.0.1"), GidType.ROCE_V2, "eth0")])
    nics = Nics(FakeVerbs(fabric), EngineSettings(), topology=topology(0, 0))
    assert {nic.name: nic.address.prefix for nic in nics} == {"a0": 96 + 16, "b0": 0}
    nics.close()


def test_the_mtu_is_the_ports_or_less(fabric: Fabric) -> None:
    nics = Nics(FakeVerbs(fabric), EngineSettings(mtu=1024), topology=Topology)
    assert nics.mtu(nics["a0"]) == 1024
    nics.close()
