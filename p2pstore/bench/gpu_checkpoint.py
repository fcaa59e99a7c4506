"""A checkpoint for benches on GPUs: safetensors files of a size, and what each rank gets of them."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

WIDTH = 4096
"""Columns of ``up_proj``, and rows of ``down_proj``."""

ROWS = 840
"""What ranks share is a multiple of it: up to 8 of them, 10, 12, 14 or 15 have the same."""

FILE_BYTES = 1 << 30
"""About as many in a file, as published checkpoints have."""

MOST_FILES = 16
NUMBER_BYTES = 2
"""Of BF16."""

BLOCK = 16 << 20
"""Random bytes, which are turned for each block of a file: so no chunk is like another."""

TURN = 7919 * 64
"""Bytes by which a block is turned further than the one before it."""


class Weight(NamedTuple):
    """A tensor in a file: where its numbers are, and its shape; ``dimension`` is the one that ranks share."""

    name: str
    file: int
    begin: int
    shape: tuple[int, int]
    dimension: int


class Checkpoint:
    """Files that were written into a directory."""

    def __init__(self, directory: Path, size: int) -> None:
        """Of about ``size`` bytes: not less than the smallest one, of 14 MB. The directory is empty.

        Raises ``OSError`` where there is no room.
        """
        files = max(1, min(MOST_FILES, size // FILE_BYTES))
        rows = max(1, size // files // (2 * WIDTH * NUMBER_BYTES * ROWS)) * ROWS
        self.weights: list[Weight] = []
        self.paths: list[Path] = []
        block = os.urandom(BLOCK)
        for number in range(files):
            path = directory / f"model-{number + 1:05}-of-{files:05}.safetensors"
            self._write(path, number, rows, memoryview(block + block))
            self.paths.append(path)
        self.size = sum(path.stat().st_size for path in self.paths)

    def _write(self, path: Path, number: int, rows: int, twice: memoryview) -> None:
        length = rows * WIDTH * NUMBER_BYTES
        kinds = {"up_proj": ((rows, WIDTH), 0), "down_proj": ((WIDTH, rows), 1)}
        header = {
            f"model.layers.{number}.mlp.{kind}.weight": {
                "dtype": "BF16",
                "shape": list(shape),
                "data_offsets": [place * length, (place + 1) * length],
            }
            for place, (kind, (shape, _)) in enumerate(kinds.items())
        }
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        for place, (name, (shape, dimension)) in enumerate(zip(header, kinds.values(), strict=True)):
            self.weights.append(Weight(name, number, 8 + len(text) + place * length, shape, dimension))
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for at in range(0, 2 * length, BLOCK):
                turn = (number * BLOCK // 3 + at // BLOCK * TURN) % BLOCK
                file.write(twice[turn : turn + min(BLOCK, 2 * length - at)])

    def slices(self, rank: int, ranks: int) -> Iterator[tuple[str, tuple[int, int], memoryview]]:
        """Each tensor's part for a rank: its name, its shape, and its bytes, which are valid until the next one."""
        for number, path in enumerate(self.paths):
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
                for weight in self.weights:
                    if weight.file == number:
                        with memoryview(data) as view:
                            shape, part = _slice(view, weight, rank, ranks)
                        yield weight.name, shape, memoryview(part)


def _slice(data: memoryview, weight: Weight, rank: int, ranks: int) -> tuple[tuple[int, int], bytearray]:
    rows, columns = weight.shape
    wide = columns * NUMBER_BYTES
    if weight.dimension == 0:
        share = rows // ranks
        begin = weight.begin + rank * share * wide
        return (share, columns), bytearray(data[begin : begin + share * wide])
    share = wide // ranks
    part = bytearray()
    for row in range(rows):
        begin = weight.begin + row * wide + rank * share
        part += data[begin : begin + share]
    return (rows, columns // ranks), part
