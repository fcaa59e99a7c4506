from __future__ import annotations

from pathlib import Path

import pytest
import safetensors

from p2pstore.bench import gpu_checkpoint
from p2pstore.bench.gpu_checkpoint import NUMBER_BYTES, ROWS, WIDTH, Checkpoint
from p2pstore.tensors.ranks import Ranks

SMALLEST = 2 * WIDTH * ROWS * NUMBER_BYTES


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_checkpoint, "FILE_BYTES", SMALLEST)
    monkeypatch.setattr(gpu_checkpoint, "BLOCK", 1 << 20)


def test_files_are_safetensors_of_about_that_size_and_no_block_is_like_another(tmp_path: Path) -> None:
    made = Checkpoint(tmp_path, 2 * SMALLEST)
    assert len(made.paths) == 2
    assert 0 <= made.size - 2 * SMALLEST < 4096
    blocks: list[bytes] = []
    for path in made.paths:
        data = path.read_bytes()
        assert len(safetensors.deserialize(data)) == 2
        blocks += [data[at : at + 4096] for at in range(4096, len(data) - 4096, 1 << 20)]
    assert len(set(blocks)) == len(blocks)


def test_one_is_the_smallest(tmp_path: Path) -> None:
    assert 0 < Checkpoint(tmp_path, 1).size - SMALLEST < 4096


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_slices_are_what_ranks_get(tmp_path: Path, ranks: int) -> None:
    made = Checkpoint(tmp_path, 1)
    whole = {name: tensor["data"] for name, tensor in safetensors.deserialize(made.paths[0].read_bytes())}
    parts = [{name: (shape, bytes(part)) for name, shape, part in made.slices(rank, ranks)} for rank in range(ranks)]
    for weight in made.weights:
        each = [part[weight.name] for part in parts]
        rows, columns = weight.shape
        assert len(whole[weight.name]) == rows * columns * NUMBER_BYTES
        if weight.dimension == 0:
            assert b"".join(part for _, part in each) == whole[weight.name]
            assert {shape for shape, _ in each} == {(rows // ranks, columns)}
        else:
            wide = columns // ranks * NUMBER_BYTES
            joined = b"".join(part[row * wide : (row + 1) * wide] for row in range(rows) for _, part in each)
            assert joined == whole[weight.name]
            assert {shape for shape, _ in each} == {(rows, columns // ranks)}


def test_names_tell_how_ranks_share_them(tmp_path: Path) -> None:
    from p2pstore.tensors.header import Tensor

    for weight in Checkpoint(tmp_path, 1).weights:
        cut = Ranks(1, 2).cut(Tensor(weight.name, "BF16", weight.shape, 0, 1))
        assert cut is not None
        assert (cut.dimension, cut.part, cut.parts) == (weight.dimension, 1, 2)
