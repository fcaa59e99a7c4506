"""Safetensors files to test with, made by hand, so that they can also be wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping

from p2pstore.tensors.dtypes import DTYPES
from tests.p2pstore.samples import content

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""From a tensor's name to its type and shape."""


def nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    bits = DTYPES[dtype].bits
    for extent in shape:
        bits *= extent
    assert bits % 8 == 0
    return bits // 8


def header_of(shapes: Shapes, metadata: Mapping[str, str] | None = None) -> dict[str, object]:
    """The entries of a header, in the order given."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, (dtype, shape) in shapes.items():
        end = at + nbytes(dtype, shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    return entries


def framed(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def file_of(shapes: Shapes, metadata: Mapping[str, str] | None = None, seed: int = 0, pad: int = 8) -> bytes:
    """A safetensors file of random numbers; its header is filled up to a multiple of ``pad``."""
    text = json.dumps(header_of(shapes, metadata), separators=(",", ":")).encode()
    text += b" " * (-len(text) % pad)
    return framed(text, content(sum(nbytes(*kind) for kind in shapes.values()), seed))


def index_of(files: Mapping[str, Shapes]) -> bytes:
    """The index of a checkpoint in several files."""
    weights = {name: path for path, shapes in files.items() for name in shapes}
    total = sum(nbytes(*kind) for shapes in files.values() for kind in shapes.values())
    return json.dumps({"metadata": {"total_size": total}, "weight_map": weights}, indent=2).encode()
