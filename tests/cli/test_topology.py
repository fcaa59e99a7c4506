from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from engine.cuda import load
from engine.errors import GpuUnavailable
from engine.topology import Address, Topology, discover, priority_matrix
from mooncake_cli.commands.topology import Way, _document, _tables, _ways, speed
from mooncake_cli.output import Output
from scripts.json_keys.documents import DOCUMENTS
from scripts.json_keys.form import faults
from tests.cli.conftest import Mooncake
from tests.engine.cuda.gpus import fake


def made_up() -> ModuleType:
    file = Path(__file__).parents[1] / "engine" / "topology" / "made_up.py"
    spec = importlib.util.spec_from_file_location("made_up_sysfs_for_cli", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_people_see_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    found = discover(made_up().server(tmp_path), addresses=lambda: {2: (Address("10.0.0.1", 24),)}, routes=tuple)
    text = _tables(Output(), found, [], priority_matrix(found), ["10.0.0.1", "10.0.1.1"])
    rows = [line.split() for line in text.splitlines()]
    assert ["NIC", "STATE", "SPEED", "NUMA", "PCI", "ADDRESSES"] in rows
    assert ["ib0", "up", "400", "Gb/s", "0", "0000:02:00.0", "10.0.0.1/24"] in rows
    assert ["dummy0", "down", "-", "-", "-", "-"] in rows
    assert not any(row[:1] == ["lo"] for row in rows)
    assert ["mlx5_1", "1", "active", "InfiniBand", "400", "Gb/s", "1", "ib1"] in rows
    assert ["cuda:0", "NVIDIA", "0", "0000:03:00.0", "ib0"] in rows
    assert ["cuda:1", "NVIDIA", "0", "0000:04:00.0", "eth0,", "ib0"] in rows
    assert ["cpu:0", "mlx5_0", "mlx5_1"] in rows
    assert text.endswith("are bound to: 10.0.0.1, 10.0.1.1\n")


def test_people_see_which_gpus_reach_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As CUDA says, whatever numbers it gives them: GPU 0 is the last on PCI here."""
    monkeypatch.setenv("NO_COLOR", "1")
    found = discover(made_up().server(tmp_path), addresses=dict, routes=tuple)
    places = [gpu.path[-1] for gpu in found.gpus]
    count = len(places)
    with fake(count, strangers=[(0, 1)]) as driver:
        monkeypatch.setattr(driver, "pci_address", lambda device: places[count - 1 - device])
        ways = _ways(Output(), found)
    assert capsys.readouterr().err == ""
    rows = [line.split() for line in _tables(Output(), found, ways, {}, None).splitlines()]
    names = [gpu.name for gpu in found.gpus]
    assert ["FROM", *names] in rows
    table = {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows[-1 - count : -1]}
    first, second, last = names[0], names[1], names[-1]
    assert table[last][names[-2]] == table[names[-2]][last] == "host"
    assert (table[first][second], table[first][last], table[first][first]) == ("PHB", "SYS", "-")
    assert {"from": first, "to": last, "peer_access": True, "nvlink": None, "pci": "SYS"} in [w.to_json() for w in ways]


def test_what_cuda_does_not_tell_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none() -> Any:
        raise GpuUnavailable(detail="there is no driver", todo="install one")

    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(load, "cuda", none)
    found = discover(made_up().server(tmp_path), addresses=dict, routes=tuple)
    ways = _ways(Output(), found)
    said = capsys.readouterr().err
    assert said.startswith("how the GPUs reach one another is not known: ")
    assert "there is no driver" in said
    assert {each.peer_access for each in ways} == {None}
    text = _tables(Output(), found, ways, {}, None)
    assert "PHB?" in text
    assert text.endswith("?: whether one copies to the other by itself is not known\n")


@pytest.mark.parametrize(
    ("way", "cell"),
    [
        (Way("a", "b", peer_access=True, nvlink=True, pci="SYS"), "NVLink"),
        (Way("a", "b", peer_access=True, nvlink=False, pci="PXB"), "PXB"),
        (Way("a", "b", peer_access=True, nvlink=None, pci=""), "peer"),
        (Way("a", "b", peer_access=False, nvlink=False, pci="SYS"), "host"),
        (Way("a", "b", peer_access=None, nvlink=None, pci=""), "?"),
    ],
)
def test_the_ways_between_two(way: Way, cell: str) -> None:
    assert way.cell() == cell


def test_a_machine_without_gpus_says_so_in_one_line() -> None:
    assert _tables(Output(), Topology(), [], {}, None).splitlines()[-1] == "no GPU was found"


@pytest.mark.parametrize(("mbps", "text"), [(None, "-"), (100, "100 Mb/s"), (2500, "2.5 Gb/s"), (400_000, "400 Gb/s")])
def test_speeds(mbps: int | None, text: str) -> None:
    assert speed(mbps) == text


def test_json_has_everything_and_peer_adds_the_sources(mooncake: Mooncake) -> None:
    document = json.loads(mooncake("topology", "--json").stdout)
    assert set(document) == {"numa", "nics", "rdma", "gpus", "gpu_links", "matrix"}
    document = json.loads(mooncake("topology", "--json", "--peer", "127.0.0.1").stdout)
    assert document["sources"] == []
    done = mooncake("topology", "--peer", "somewhere")
    assert (done.returncode, "'somewhere' is no IP address" in done.stderr) == (2, True)


def test_json_of_a_machine_with_all_of_it_is_as_documented(tmp_path: Path) -> None:
    """Cards, RDMA devices and GPUs, which most machines that run this lack."""
    found = discover(made_up().server(tmp_path), addresses=lambda: {2: (Address("10.0.0.1", 24),)}, routes=tuple)
    with fake(len(found.gpus)):
        ways = _ways(Output(), found)
    told = json.loads(json.dumps(_document(found, ways, priority_matrix(found))))
    assert all(told[key] for key in ("numa", "nics", "rdma", "gpus", "gpu_links", "matrix"))
    (document,) = (each for each in DOCUMENTS if each.commands == ("topology",))
    assert list(faults(told, document.shape)) == []
    assert told["gpus"][0]["nearest_nics"] == ["ib0"]


def test_the_matrix_alone_is_upstreams_json(mooncake: Mooncake) -> None:
    done = mooncake("topology", "--matrix")
    assert done.returncode == 0
    assert all(len(lists) == 2 for lists in json.loads(done.stdout).values())


def test_a_matrix_is_taken_from_a_file_and_what_is_strange_is_said(mooncake: Mooncake, tmp_path: Path) -> None:
    matrix = {"cpu:0": [["mlx5_77"], []]}
    file = tmp_path / "matrix.json"
    file.write_text(json.dumps(matrix))
    done = mooncake("topology", "--matrix", "--json", "--nic-priority-matrix", str(file))
    assert json.loads(done.stdout) == matrix
    assert f"{file} names devices that this machine lacks: mlx5_77" in done.stderr
    assert json.loads(mooncake("topology", "--json", MC_CUSTOM_TOPO_JSON=str(file)).stdout)["matrix"] == matrix
    file.write_text("[]")
    done = mooncake("topology", "--nic-priority-matrix", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{file}: it is no JSON object" in done.stderr


def test_quiet_names_the_cards_that_are_up(mooncake: Mooncake) -> None:
    up = [nic.name for nic in discover().nics if nic.up and not nic.loopback]
    assert mooncake("topology", "-q").stdout.splitlines() == up
