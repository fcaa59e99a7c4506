from __future__ import annotations

import importlib.util
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest

from engine.topology import Address, discover


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("made_up_sysfs", Path(__file__).with_name("made_up.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


made_up = load()


def test_cards_have_speed_node_and_addresses(tmp_path: Path) -> None:
    found = {2: (Address("10.0.0.1", 24),)}
    topology = discover(made_up.server(tmp_path), addresses=lambda: found, routes=lambda: ())
    cards = {nic.name: nic for nic in topology.nics}
    assert list(cards) == ["dummy0", "eth0", "ib0", "ib1", "lo"]
    ib0 = cards["ib0"]
    assert (ib0.index, ib0.up, ib0.speed, ib0.numa, ib0.pci, ib0.mtu, ib0.mac) == (
        2,
        True,
        400_000,
        0,
        "0000:02:00.0",
        4092,
        "02:00:00:00:00:02",
    )
    assert ib0.addresses == (Address("10.0.0.1", 24),)
    assert (cards["ib1"].numa, cards["ib1"].addresses) == (1, ())
    # virtio's own directory tells no node; the PCI device above it does. -1 is no speed.
    assert (cards["eth0"].numa, cards["eth0"].speed, cards["eth0"].pci) == (0, None, "0000:00:05.0")
    assert (cards["lo"].loopback, cards["lo"].up, cards["lo"].numa) == (True, True, None)
    assert cards["dummy0"].up is False


def test_rdma_devices_have_ports_and_interfaces(tmp_path: Path) -> None:
    made_up.server(tmp_path)
    card = made_up.pci(tmp_path, "pci0000:00", "0000:00:06.0", numa=0)
    made_up.rdma(tmp_path, "mlx5_10", card, state="1: DOWN", rate="40 Gb/sec (4X QDR)", layer="Ethernet")
    devices = discover(tmp_path).rdma
    assert [device.name for device in devices] == ["mlx5_0", "mlx5_1", "mlx5_10"]
    assert (devices[0].active, devices[0].numa, devices[0].netdevs) == (True, 0, ("ib0",))
    assert devices[0].path == ("pci0000:00", "0000:00:01.0", "0000:01:00.0", "0000:02:00.0")
    (port,) = devices[0].ports
    assert (port.number, port.state, port.link_layer, port.speed) == (1, "ACTIVE", "InfiniBand", 400_000)
    assert (devices[2].active, devices[2].ports[0].state) == (False, "DOWN")


def test_gpus_are_display_controllers_of_known_vendors_in_order_of_their_address(tmp_path: Path) -> None:
    made_up.server(tmp_path)
    made_up.pci(tmp_path, "pci0000:80", "0000:80:09.0", numa=1, class_="0x038000", vendor="0x1002")
    gpus = [(gpu.name, gpu.numa, gpu.path[-1]) for gpu in discover(tmp_path).gpus]
    assert gpus == [
        ("cuda:0", 0, "0000:03:00.0"),
        ("cuda:1", 0, "0000:04:00.0"),
        ("hip:0", 1, "0000:80:09.0"),
        ("cuda:2", 1, "0000:83:00.0"),
        ("cuda:3", 1, "0000:84:00.0"),
    ]


def test_numa_nodes_have_distances(tmp_path: Path) -> None:
    topology = discover(made_up.server(tmp_path))
    assert [(node.number, dict(node.distances)) for node in topology.numa] == [(0, {0: 10, 1: 21}), (1, {0: 21, 1: 10})]


def test_on_a_machine_of_one_node_unknown_means_that_one(tmp_path: Path) -> None:
    made_up.nodes(tmp_path, "10")
    card = made_up.pci(tmp_path, "pci0000:00", "0000:00:03.0", numa=-1)
    made_up.nic(tmp_path, "eth0", 2, card)
    assert discover(tmp_path).nics[0].numa == 0


def test_nothing_at_all_is_no_error(tmp_path: Path) -> None:
    topology = discover(tmp_path / "absent", addresses=dict, routes=tuple)
    assert topology.to_json() == {"numa": [], "nics": [], "rdma": [], "gpus": []}


@pytest.mark.skipif(sys.platform != "linux", reason="sysfs is Linux's")
def test_this_machine_has_a_loopback_with_its_address() -> None:
    topology = discover()
    if not topology.nics:
        pytest.skip("/sys/class/net is hidden here")
    (loopback,) = [nic for nic in topology.nics if nic.loopback]
    assert loopback.index == socket.if_nametoindex(loopback.name)
    assert "127.0.0.1/8" in map(str, loopback.addresses)
