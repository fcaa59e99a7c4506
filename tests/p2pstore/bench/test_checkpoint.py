from __future__ import annotations

import math
from pathlib import Path

import pytest

from p2pstore.bench.checkpoint import LAYERS, MIN_SIZE, SHARDS, Run, changes, layout, write, write_changed
from p2pstore.objects.cutting import origin_of
from p2pstore.tensors.header import parse_header

MIB = 1 << 20


@pytest.mark.parametrize("size", [MIN_SIZE, 100 * MIB, 16 << 30])
def test_the_shape_of_a_model(size: int) -> None:
    shards = layout(size)
    total = sum(shard.size for shard in shards)
    assert 0.9 * size < total < 1.1 * size
    assert len(shards) == SHARDS
    names = [tensor.name for shard in shards for tensor in shard.tensors]
    assert len(names) == len(set(names)) == 9 * LAYERS + 3
    for shard in shards:
        at = 0
        for tensor in shard.tensors:
            assert (tensor.begin, tensor.end - tensor.begin) == (at, 2 * math.prod(tensor.shape))
            at = tensor.end


@pytest.mark.parametrize(("share", "runs"), [(0.02, 1), (0.02, 7), (0.02, 300), (0.5, 3), (0.001, 1000)])
def test_what_changes_is_what_was_asked_for_and_nothing_twice(share: float, runs: int) -> None:
    shards = layout(100 * MIB)
    sizes = {shard.name: shard.size for shard in shards}
    found = changes(shards, share, runs)
    assert len(found) == runs
    assert sum(run.length for run in found) == pytest.approx(share * sum(sizes.values()), rel=0.01)
    at = dict.fromkeys(sizes, 0)
    for run in found:
        assert run.begin >= at[run.file]
        at[run.file] = run.begin + run.length
        assert at[run.file] <= sizes[run.file]


def test_one_run_begins_with_a_tensor() -> None:
    shards = layout(100 * MIB)
    (run,) = changes(shards, 0.02, 1)
    (shard,) = (shard for shard in shards if shard.name == run.file)
    assert run.begin in {len(shard.header) + tensor.begin for tensor in shard.tensors}


def test_two_versions_differ_in_the_runs_alone(tmp_path: Path) -> None:
    shards = layout(MIN_SIZE)
    runs = [Run(shards[0].name, len(shards[0].header) + 100, 50), Run(shards[2].name, shards[2].size - 7, 7)]
    write(tmp_path / "a", shards)
    write_changed(tmp_path / "b", tmp_path / "a", runs)
    for shard in shards:
        before, after = ((tmp_path / which / shard.name).read_bytes() for which in "ab")
        assert len(before) == len(after) == shard.size
        header = parse_header(before, shard.size)
        assert [t.name for t in header.tensors] == [t.name for t in shard.tensors]
        for run in runs:
            if run.file == shard.name:
                assert before[run.begin : run.begin + run.length] != after[run.begin : run.begin + run.length]
                before = (
                    before[: run.begin] + after[run.begin : run.begin + run.length] + before[run.begin + run.length :]
                )
        assert before == after
        assert origin_of(lambda offset, length, data=after: data[offset : offset + length], shard.size, MIB)  # type: ignore[misc]
