"""Tensors of PyTorch, loaded from another node, beside what safetensors itself loads from the files."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from p2pstore import P2PStore
from p2pstore.errors import UsageError
from tests.p2pstore.samples import MIB
from tests.p2pstore.tensors.checkpoints import Shapes, file_of

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-serving installs it")
safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors: make test-serving installs it")

KINDS = "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ I16 U16 F16 BF16 I32 U32 F32 C64 F64 I64 U64 F4"


@pytest.fixture
def stores() -> Iterator[tuple[P2PStore, P2PStore]]:
    with (
        P2PStore(f"memory://{secrets.token_hex(8)}", node="giver") as giver,
        P2PStore(f"memory://{secrets.token_hex(8)}", node="taker") as taker,
    ):
        yield giver, taker


def loaded(stores: tuple[P2PStore, P2PStore], path: Path, **options: Any) -> dict[str, Any]:
    giver, taker = stores
    giver.register("n", path, chunk_size=MIB, force=True)
    return taker.load_tensors("n", peers=[giver.control], **options)


def assert_same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    assert set(found) == set(wanted)
    for name, tensor in found.items():
        other = wanted[name]
        assert (tensor.dtype, tensor.shape, tensor.device) == (other.dtype, other.shape, other.device), name
        assert torch.equal(tensor.view(torch.uint8), other.view(torch.uint8)), name


@pytest.mark.parametrize("pad", [1, 8])
def test_every_type_that_pytorch_has(stores: tuple[P2PStore, P2PStore], tmp_path: Path, pad: int) -> None:
    shapes: Shapes = {kind: (kind, (3, 6)) for kind in KINDS.split()}
    path = tmp_path / "m.safetensors"
    path.write_bytes(file_of(shapes, pad=pad))
    assert_same(loaded(stores, path), safetensors.load_file(path))


@pytest.mark.parametrize("kind", ["F6_E2M3", "F6_E3M2"])
def test_types_that_it_has_not(stores: tuple[P2PStore, P2PStore], tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(file_of({"t": (kind, (4, 4)), "x": ("U8", (1,))}))
    with pytest.raises(UsageError, match=f"'t' is of {kind}: PyTorch has no such type; leave it out with include="):
        loaded(stores, path)
    assert set(loaded(stores, path, include=["x"])) == {"x"}


def test_shapes_without_numbers(stores: tuple[P2PStore, P2PStore], tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(file_of({"scalar": ("BF16", ()), "none": ("F32", (0, 3)), "packed": ("F4", (0, 4))}))
    found = loaded(stores, path)
    assert {name: tuple(t.shape) for name, t in found.items()} == {"scalar": (), "none": (0, 3), "packed": (0, 2)}
    assert torch.equal(found["scalar"], safetensors.load_file(path)["scalar"])


def test_tensors_of_a_file_share_their_memory(stores: tuple[P2PStore, P2PStore], tmp_path: Path) -> None:
    made = {f"model.layers.{n}.mlp.up_proj.weight": torch.randn(256, 512).to(torch.bfloat16) for n in range(20)}
    (tmp_path / "m").mkdir()
    safetensors.save_file(made, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    found = loaded(stores, tmp_path / "m")
    assert_same(found, made)
    assert len({tensor.untyped_storage().data_ptr() for tensor in found.values()}) == 1


@pytest.mark.parametrize(("layer", "dimension"), [("up_proj", 0), ("down_proj", 1)])
def test_ranks_slices(stores: tuple[P2PStore, P2PStore], tmp_path: Path, layer: str, dimension: int) -> None:
    name = f"model.layers.0.mlp.{layer}.weight"
    made = {name: torch.randn(512, 1024).to(torch.bfloat16)}
    safetensors.save_file(made, tmp_path / "m")
    parts = [loaded(stores, tmp_path / "m", rank=(rank, 4))[name] for rank in range(4)]
    assert all(torch.equal(part, made[name].chunk(4, dimension)[rank]) for rank, part in enumerate(parts))
    assert all(part.is_contiguous() for part in parts)


@pytest.mark.parametrize("device", ["xpu:0", "meta", "nowhere", "cpu:x"])
def test_other_devices(stores: tuple[P2PStore, P2PStore], device: str) -> None:
    with pytest.raises(UsageError):
        stores[1].load_tensors("n", device=device)
