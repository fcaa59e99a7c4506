from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from engine.topology import Address, discover, priority_matrix
from mooncake_cli.commands.topology import _tables, speed
from mooncake_cli.output import Output
from tests.cli.conftest import Mooncake


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
    text = _tables(Output(), found, priority_matrix(found), ["10.0.0.1", "10.0.1.1"])
    rows = [line.split() for line in text.splitlines()]
    assert ["NIC", "STATE", "SPEED", "NUMA", "PCI", "ADDRESSES"] in rows
    assert ["ib0", "up", "400", "Gb/s", "0", "0000:02:00.0", "10.0.0.1/24"] in rows
    assert ["dummy0", "down", "-", "-", "-", "-"] in rows
    assert not any(row[:1] == ["lo"] for row in rows)
    assert ["mlx5_1", "1", "active", "InfiniBand", "400", "Gb/s", "1", "ib1"] in rows
    assert ["cuda:0", "NVIDIA", "0", "0000:03:00.0"] in rows
    assert ["cpu:0", "mlx5_0", "mlx5_1"] in rows
    assert text.endswith("are bound to: 10.0.0.1, 10.0.1.1\n")


@pytest.mark.parametrize(("mbps", "text"), [(None, "-"), (100, "100 Mb/s"), (2500, "2.5 Gb/s"), (400_000, "400 Gb/s")])
def test_speeds(mbps: int | None, text: str) -> None:
    assert speed(mbps) == text


def test_json_has_everything_and_peer_adds_the_sources(mooncake: Mooncake) -> None:
    document = json.loads(mooncake("topology", "--json").stdout)
    assert set(document) == {"numa", "nics", "rdma", "gpus", "matrix"}
    document = json.loads(mooncake("topology", "--json", "--peer", "127.0.0.1").stdout)
    assert document["sources"] == []
    done = mooncake("topology", "--peer", "somewhere")
    assert (done.returncode, "'somewhere' is no IP address" in done.stderr) == (2, True)


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
