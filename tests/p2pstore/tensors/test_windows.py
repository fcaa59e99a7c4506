"""Chunks of tensors in bundles: each comes once, and no tensor is handed out before its last."""

from __future__ import annotations

import pytest

from p2pstore.objects.file_list import FileEntry
from p2pstore.objects.manifest import Manifest
from p2pstore.tensors.header import Tensor
from p2pstore.tensors.plan import Plan, make_plan
from p2pstore.tensors.windows import windows
from tests.p2pstore.samples import MIB


def planned(files: dict[str, list[int]]) -> tuple[Manifest, Plan]:
    """Files of tensors of so many bytes, one after the other, without headers."""
    entries, wanted = [], []
    for number, (path, lengths) in enumerate(files.items()):
        at = 0
        for count, length in enumerate(lengths):
            wanted.append((number, Tensor(f"{path}.{count}", "U8", (length,), at, at + length), None))
            at += length
        entries.append(FileEntry(path, at, 0o644, (b"",) * -(-at // MIB)))
    manifest = Manifest("directory", "xxh3_128", MIB, entries)
    return manifest, make_plan(wanted, manifest.file_offsets, apart=True)


@pytest.mark.parametrize("size", [1, MIB, 2 * MIB + 1, 64 * MIB])
@pytest.mark.parametrize(
    "files",
    [
        {"a": [10, 20, 5 * MIB, 0, 7, MIB - 7], "b": [0, 3 * MIB, 1]},
        {"a": [MIB, MIB], "b": [0]},
        {"a": [0, 0]},
        {},
    ],
)
def test_each_chunk_comes_once_and_each_tensor_after_its_last(files: dict[str, list[int]], size: int) -> None:
    manifest, plan = planned(files)
    came: list[int] = []
    begun: list[int] = []
    whole: list[int] = []
    pieces = {piece.area: piece for piece in plan.pieces}
    for window in windows(manifest, plan, size):
        assert sum(manifest.lengths[chunk] for chunk in window.chunks) <= max(size, MIB)
        came += window.chunks
        begun += window.begun
        whole += window.whole
        for number, piece in pieces.items():
            needed = set(manifest.chunks_of(piece.source, piece.row))
            assert (number in begun) == bool(needed & {*came})
            assert (number in whole) == (needed <= {*came})
    assert came == list(range(manifest.chunks))
    assert begun == whole == list(range(len(plan.places)))


def test_what_is_not_wanted_does_not_come() -> None:
    manifest, plan = planned({"a": [3 * MIB] * 3})
    first_and_last = plan._replace(places=plan.places[::2], pieces=plan.pieces[::2])
    found = list(windows(manifest, first_and_last, 4 * MIB))
    assert [window.chunks for window in found] == [(0, 1, 2, 6), (7, 8)]


def test_each_tensor_has_an_area() -> None:
    _, plan = planned({"a": [8, 8], "b": [8]})
    assert plan.sizes == (8, 8, 8)
    assert [(place.area, place.offset) for place in plan.places] == [(0, 0), (1, 0), (2, 0)]
