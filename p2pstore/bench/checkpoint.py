"""Checkpoints to measure with: safetensors files in a language model's shape, and versions that differ a little.

The shape is that of a decoder of 32 layers, whose width follows from the size: embeddings, and of each layer four
projections, three matrices of the MLP and two norms, as transformers writes them. What changes from one version to the
next are *runs*: bytes that follow one another from the beginning of a tensor on, whole tensors and a part of the last.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LAYERS = 32
VOCABULARY = 8
"""Words for each dimension of the width."""

SHARDS = 4
ELEMENT_BYTES = 2
"""Of bfloat16."""

WIDTH_STEP = 16
MIN_SIZE = 16 << 20
"""Below, there is no shape of a model left."""

LENGTH_BYTES = 8
BLOCK = 1 << 20


@dataclass(frozen=True)
class Tensor:
    """A tensor's name, its shape, and where its bytes lie in its file's data."""

    name: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Shard:
    """A file: its name, its header with the length before it, and its tensors in their order."""

    name: str
    header: bytes
    tensors: tuple[Tensor, ...]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.header) + self.tensors[-1].end


@dataclass(frozen=True)
class Run:
    """Bytes of a file that change, from ``begin`` on."""

    file: str
    begin: int
    length: int


def layout(size: int) -> list[Shard]:
    """The files of a checkpoint of about ``size`` bytes, ``MIN_SIZE`` at least. Pure."""
    shapes = list(_shapes(_width(size)))
    wanted = sum(math.prod(shape) for _, shape in shapes) * ELEMENT_BYTES / SHARDS
    shards: list[list[Tensor]] = [[]]
    for name, shape in shapes:
        at = shards[-1][-1].end if shards[-1] else 0
        if at >= wanted and len(shards) < SHARDS:
            shards.append([])
            at = 0
        shards[-1].append(Tensor(name, shape, at, at + math.prod(shape) * ELEMENT_BYTES))
    return [
        Shard(f"model-{number:05}-of-{len(shards):05}.safetensors", _header(tensors), tuple(tensors))
        for number, tensors in enumerate(shards, 1)
    ]


def _width(size: int) -> int:
    """The width of a model of about so many bytes."""
    squares = LAYERS * (4 + 8) + 2 * VOCABULARY  # of the width, in elements
    return max(WIDTH_STEP, round(math.sqrt(size / ELEMENT_BYTES / squares) / WIDTH_STEP) * WIDTH_STEP)


def _shapes(width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    inner = width * 8 // 3
    yield "model.embed_tokens.weight", (VOCABULARY * width, width)
    for layer in range(LAYERS):
        of = f"model.layers.{layer}."
        yield f"{of}input_layernorm.weight", (width,)
        for part in "qkvo":
            yield f"{of}self_attn.{part}_proj.weight", (width, width)
        yield f"{of}post_attention_layernorm.weight", (width,)
        yield f"{of}mlp.gate_proj.weight", (inner, width)
        yield f"{of}mlp.up_proj.weight", (inner, width)
        yield f"{of}mlp.down_proj.weight", (width, inner)
    yield "model.norm.weight", (width,)
    yield "lm_head.weight", (VOCABULARY * width, width)


def _header(tensors: Sequence[Tensor]) -> bytes:
    entries = {
        tensor.name: {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [tensor.begin, tensor.end]}
        for tensor in tensors
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def changes(shards: Sequence[Shard], share: float, runs: int) -> list[Run]:
    """So many runs of equal length, spread over the files, that are ``share`` of all bytes. Pure."""
    length = int(sum(shard.size for shard in shards) * share / runs / ELEMENT_BYTES) * ELEMENT_BYTES
    places = [
        (shard, tensor)
        for shard in shards
        for tensor in shard.tensors
        if tensor.begin + length <= shard.tensors[-1].end
    ]
    found: list[Run] = []
    for number in range(runs):
        shard, tensor = places[(2 * number + 1) * len(places) // (2 * runs)]
        begin = len(shard.header) + tensor.begin
        before = found[-1] if found and found[-1].file == shard.name else None
        if before is not None and begin < before.begin + before.length:  # several from one large tensor on
            begin = before.begin + before.length
        found.append(Run(shard.name, begin, min(length, shard.size - begin)))
    return found


def write(directory: Path, shards: Sequence[Shard]) -> None:
    """Make a checkpoint of random bytes, so that nothing on the way can compress or share them."""
    directory.mkdir()
    for shard in shards:
        with (directory / shard.name).open("wb") as file:
            file.write(shard.header)
            for start in range(len(shard.header), shard.size, BLOCK):
                file.write(os.urandom(min(BLOCK, shard.size - start)))


def write_changed(directory: Path, before: Path, runs: Sequence[Run]) -> None:
    """Make another version of a checkpoint, beside it, in which these runs are others."""
    shutil.copytree(before, directory)
    for run in runs:
        with (directory / run.file).open("r+b") as file:
            file.seek(run.begin)
            for start in range(0, run.length, BLOCK):
                file.write(os.urandom(min(BLOCK, run.length - start)))
