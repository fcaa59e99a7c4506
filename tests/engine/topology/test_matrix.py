from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BadConfig
from engine.topology import (
    Gpu,
    NumaNode,
    RdmaDevice,
    RdmaPort,
    Topology,
    matrix_json,
    parse_matrix,
    priority_matrix,
    read_matrix,
)
from engine.topology.matrix import unknown_devices

ACTIVE = (RdmaPort(1, "ACTIVE", "InfiniBand", 400_000),)
FOUR_NODES = tuple(
    NumaNode(n, {m: 10 if m == n else 12 if m // 2 == n // 2 else 32 for m in range(4)}) for n in range(4)
)


def card(name: str, numa: int | None, *path: str, state: str = "ACTIVE") -> RdmaDevice:
    return RdmaDevice(name, numa, path, (RdmaPort(1, state, "InfiniBand"),))


def test_each_node_prefers_its_own_cards_and_lists_the_others_nearest_first() -> None:
    topology = Topology(FOUR_NODES, rdma=(card("mlx5_10", 3), card("mlx5_2", 1), card("mlx5_0", 0)))
    assert matrix_json(priority_matrix(topology)) == {
        "cpu:0": [["mlx5_0"], ["mlx5_2", "mlx5_10"]],
        "cpu:1": [["mlx5_2"], ["mlx5_0", "mlx5_10"]],
        "cpu:2": [["mlx5_10"], ["mlx5_0", "mlx5_2"]],
        "cpu:3": [["mlx5_10"], ["mlx5_0", "mlx5_2"]],
    }


def test_a_gpu_prefers_the_card_behind_its_switch() -> None:
    nodes = (NumaNode(0, {0: 10, 1: 21}), NumaNode(1, {0: 21, 1: 10}))
    topology = Topology(
        nodes,
        rdma=(card("near", 0, "root", "switch", "a"), card("same", 0, "root", "other", "b"), card("far", 1, "r2", "c")),
        gpus=(Gpu("cuda:0", "NVIDIA", 0, ("root", "switch", "g")), Gpu("cuda:1", "NVIDIA", 1, ("r2", "x", "h"))),
    )
    matrix = matrix_json(priority_matrix(topology))
    assert matrix["cuda:0"] == [["near"], ["same", "far"]]
    assert matrix["cuda:1"] == [["far"], ["near", "same"]]
    assert matrix["cpu:0"] == [["near", "same"], ["far"]]


def test_a_card_of_unknown_place_is_available_and_one_without_a_link_is_not() -> None:
    topology = Topology(FOUR_NODES[:1], rdma=(card("lost", None), card("down", 0, state="DOWN")))
    assert matrix_json(priority_matrix(topology)) == {"cpu:0": [[], ["lost"]]}


def test_without_rdma_the_lists_are_empty() -> None:
    assert matrix_json(priority_matrix(Topology(FOUR_NODES[:1]))) == {"cpu:0": [[], []]}


NAMES = st.lists(st.text(min_size=1, max_size=8), max_size=3)


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.lists(NAMES, min_size=2, max_size=2), max_size=4))
def test_what_is_written_is_read_again(data: dict[str, list[list[str]]]) -> None:
    assert matrix_json(parse_matrix(json.dumps(data), origin="x")) == data


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"cpu:0": []}',
        '{"cpu:0": [["a"]]}',
        '{"cpu:0": [["a"], "b"]}',
        '{"cpu:0": [[1], []]}',
        "[" * 9999,
    ],
)
def test_what_is_no_matrix_names_its_origin(text: str) -> None:
    with pytest.raises(BadConfig, match=r"^matrix\.json: "):
        parse_matrix(text, origin="matrix.json")


def test_a_file_is_read_or_named(tmp_path: Path) -> None:
    file = tmp_path / "matrix.json"
    with pytest.raises(BadConfig, match="cannot be read"):
        read_matrix(file)
    file.write_bytes(b"\xff")
    with pytest.raises(BadConfig, match="is no text"):
        read_matrix(file)
    file.write_bytes(b" " * (2 << 20))
    with pytest.raises(BadConfig, match="longer than"):
        read_matrix(file)
    file.write_text('{"cpu:0": [["mlx5_2"], ["mlx5_9"]]}')
    assert unknown_devices(read_matrix(file), [card("mlx5_2", 0)]) == ["mlx5_9"]
