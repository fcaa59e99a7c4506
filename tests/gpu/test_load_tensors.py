"""Tensors of safetensors files, loaded to a real GPU, beside what safetensors itself loads there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gpu.checkpoints import MIB, Pair, checkpoint
from tests.p2pstore.tensors.checkpoints import Shapes, file_of

torch = pytest.importorskip("torch", reason="NOT TESTED ON A GPU: PyTorch is missing")
safetensors = pytest.importorskip("safetensors.torch", reason="NOT TESTED ON A GPU: safetensors is missing")

KINDS = "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 I16 F16 BF16 I32 F32 C64 F64 I64"


@pytest.mark.parametrize("transport", ["tcp", "auto"])
def test_all_of_a_checkpoint(pair: Pair, tmp_path: Path, transport: str) -> None:
    one, other = pair
    made = checkpoint(tmp_path / "m")
    one.register("n", tmp_path / "m")
    found = other.load_tensors("n", device="cuda:0", transport=transport)
    assert set(found) == set(made)
    for name, tensor in found.items():
        assert tensor.device == torch.device("cuda:0")
        assert torch.equal(tensor.cpu(), made[name]), name
    assert len({tensor.untyped_storage().data_ptr() for tensor in found.values()}) == 2


@pytest.mark.parametrize("pad", [1, 8])
def test_every_type(pair: Pair, tmp_path: Path, pad: int) -> None:
    one, other = pair
    shapes: Shapes = {kind: (kind, (3, 6)) for kind in KINDS.split()}
    path = tmp_path / "m.safetensors"
    path.write_bytes(file_of(shapes, pad=pad))
    one.register("n", path)
    found, expected = other.load_tensors("n", device="cuda"), safetensors.load_file(path)
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor.cpu().view(torch.uint8), expected[name].view(torch.uint8)), name


def test_each_ranks_slices(pair: Pair, tmp_path: Path) -> None:
    one, other = pair
    made = checkpoint(tmp_path / "m")
    one.register("n", tmp_path / "m", chunk_size=MIB)
    ranks = [other.load_tensors("n", device="cuda:0", rank=(rank, 4)) for rank in range(4)]
    for name, whole in made.items():
        parts = [rank[name].cpu() for rank in ranks]
        if "norm" in name:
            assert all(torch.equal(part, whole) for part in parts)
        else:
            assert torch.equal(torch.cat(parts, 1 if "down_proj" in name else 0), whole)


def test_it_comes_behind_what_the_current_stream_has_to_do(pair: Pair, tmp_path: Path) -> None:
    one, other = pair
    made = checkpoint(tmp_path / "m")
    one.register("n", tmp_path / "m")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        busy = torch.zeros(512 * MIB, dtype=torch.uint8, device="cuda:0")
        for _ in range(50):
            busy.add_(1)
        del busy  # its memory is the stream's to be had again, behind what was begun
        found = other.load_tensors("n", device="cuda:0", include=["*.mlp.*"])
    assert all(torch.equal(tensor.cpu(), made[name]) for name, tensor in found.items())
