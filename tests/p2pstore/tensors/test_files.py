"""Safetensors files with some tensors of an object."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.objects.manifest import Manifest
from p2pstore.tensors.checkpoint import parse_index
from p2pstore.tensors.files import TensorFiles, tensor_files
from p2pstore.tensors.header import parse_header
from p2pstore.tensors.plan import Map
from tests.p2pstore.samples import manifest_of
from tests.p2pstore.tensors.checkpoints import Shapes, file_of, index_of

A: Shapes = {
    "a.0": ("F32", (2, 3)),
    "a.1": ("U8", (3,)),
    "a.2": ("F16", ()),
    "a.3": ("I64", (0,)),
    "a.4": ("I64", (4,)),
}
B: Shapes = {name.replace("a", "b"): kind for name, kind in A.items()}
INDEX = "d/model.safetensors.index.json"
FILES = {
    "d/1.safetensors": file_of(A, {"format": "pt"}, seed=1),
    "d/2.safetensors": file_of(B, seed=2, pad=1),
    "d/config.json": b"{}",
    INDEX: index_of({"1.safetensors": A, "2.safetensors": B}),
}


def made(files: Mapping[str, bytes], names: set[str]) -> tuple[TensorFiles, dict[str, bytes]]:
    """What is to be made, and made of the files."""
    manifest: Manifest = manifest_of(files, 16)
    paths = sorted(files)
    headers = {n: parse_header(files[p], len(files[p])) for n, p in enumerate(paths) if p.endswith("s") or not p}
    indexes = {n: parse_index(files[p], p, paths) for n, p in enumerate(paths) if p == INDEX}
    wanted = [(n, tensor) for n, header in headers.items() for tensor in header.tensors if tensor.name in names]
    found = tensor_files(manifest, wanted, headers, indexes)
    whole = b"".join(files[path] for path in paths)
    areas = [
        bytearray(head.ljust(size, b"?")) for head, size in zip(found.heads, found.shape.columns.sizes, strict=True)
    ]
    for segment in Map(found.pieces).segments(0, len(whole)):
        if segment.piece is not None:
            at = segment.piece.to + segment.begin - segment.piece.source
            areas[segment.piece.area][at : at + segment.end - segment.begin] = whole[segment.begin : segment.end]
    return found, {path: bytes(area) for path, area in zip(found.shape.columns.paths, areas, strict=True)}


def contents(data: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    return {name: (t["dtype"], t["shape"], t["data"]) for name, t in safetensors.deserialize(data)}


@given(st.sets(st.sampled_from([*A, *B])))
def test_each_file_has_what_is_wanted_of_it(names: set[str]) -> None:
    found, files = made(FILES, names)
    assert found.tensors == len(names)
    expected = {
        path: {name: value for name, value in contents(FILES[path]).items() if name in names}
        for path in ("d/1.safetensors", "d/2.safetensors")
    }
    assert {p: contents(data) for p, data in files.items() if p != INDEX} == {p: e for p, e in expected.items() if e}
    if names:
        index = json.loads(files[INDEX])
        assert index["weight_map"] == {n: "1.safetensors" if n in A else "2.safetensors" for n in sorted(names)}
        assert index["metadata"]["total_size"] == sum(len(value[2]) for e in expected.values() for value in e.values())


def test_metadata_stay() -> None:
    _, files = made(FILES, {"a.1", "b.1"})
    header = files["d/1.safetensors"]
    assert parse_header(header, len(header)).metadata == {"format": "pt"}
    assert INDEX in files
    assert "d/config.json" not in files


def test_a_single_file() -> None:
    found, files = made({"": file_of(A)}, {"a.0", "a.4"})
    assert found.shape.kind == "file"
    assert set(contents(files[""])) == {"a.0", "a.4"}


def test_what_is_made_has_an_identity() -> None:
    digest = made(FILES, {"a.0"})[0].shape.digest
    assert made(FILES, {"a.0"})[0].shape.digest == digest
    others = [
        made(FILES, {"a.0", "a.1"}),
        made({**FILES, "d/1.safetensors": file_of(A, {"format": "pt"}, seed=3)}, {"a.0"}),
        made({**FILES, "d/1.safetensors": file_of(A, {"format": "np"}, seed=1)}, {"a.0"}),
    ]
    assert digest not in {found.shape.digest for found, _ in others}


@pytest.mark.parametrize("names", [{"a.0", "a.1"}, {"b.0", "b.1", "b.2"}])
def test_neighbours_are_one_piece(names: set[str]) -> None:
    assert len(made(FILES, names)[0].pieces) == 1
