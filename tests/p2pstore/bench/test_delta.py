"""Real agents: of a new version what changed moves to each node, which has it then in place of the old one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from p2pstore.bench.checkpoint import MIN_SIZE
from p2pstore.bench.delta import Delta, DeltaPlan, delta
from p2pstore.errors import UsageError

MIB = 1 << 20


def run(tmp_path: Path, **plan: Any) -> Delta:
    result = delta(DeltaPlan(directory=tmp_path, **plan), lambda _: None)
    assert list(tmp_path.iterdir()) == [], "the copies are removed"
    for received in result.receivers:
        assert received.error == "", received
        assert received.equal, received
    assert result.ok
    return result


def test_what_changed_moves_and_a_chunk_for_each_run(tmp_path: Path) -> None:
    result = run(tmp_path, receivers=2, size=64 * MIB, share=0.05, runs=2)
    assert result.changed == pytest.approx(0.05 * result.size, rel=0.01)
    for received in result.receivers:
        assert received.full.pulled == result.size
        assert received.update.pulled + received.update.reused == result.size
        assert result.changed <= received.update.pulled <= result.changed + 2 * 2 * result.chunk_size
        assert sum(received.update.peers.values()) == received.update.pulled
    document = result.to_json()
    assert document["moved"] == max(received.update.pulled for received in result.receivers)
    assert document["share"] == document["moved"] / result.size
    assert [node["node"] for node in document["nodes"]] == ["node1", "node2"]


def test_of_2_percent_at_most_3_move(tmp_path: Path) -> None:
    result = run(tmp_path, receivers=1, size=256 * MIB)
    assert 0.019 < result.changed / result.size <= 0.02
    assert result.to_json()["share"] <= 0.03


@pytest.mark.parametrize(
    "plan",
    [
        {"receivers": 0},
        {"receivers": 65},
        {"size": MIN_SIZE - 1},
        {"share": 0.0},
        {"share": 0.6},
        {"runs": 0},
        {"runs": 10**6},
    ],
)
def test_plans_that_make_no_sense(tmp_path: Path, plan: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        delta(DeltaPlan(directory=tmp_path, **plan), lambda _: None)
