"""Verify names every chunk that is wrong, why, and nothing else."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pstore.errors import Interrupted, UsageError
from p2pstore.holding.bad_chunks import bad_chunks, verify_holding
from p2pstore.holding.catalog import Holding
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.source import scan
from p2pstore.objects.tree_hash import hash_tree
from tests.p2pstore.samples import MIB, content, manifest_of, record_of, write_tree

FILES = {"a": content(2 * MIB + 1), "b": b"", "c/d é": content(9, 2)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_tree(tmp_path / "tree", FILES)
    return tmp_path / "tree"


def held(root: Path, hash_name: str = "xxh3_128") -> tuple[Holding, Manifest]:
    tree = scan(root)
    manifest = hash_tree(tree, hash_name=hash_name, chunk_size=MIB)
    return Holding(record_of("n", manifest), "gold", root, tree.files), manifest


def quiet(done: int, total: int) -> None:
    assert 0 < done <= total


@pytest.mark.parametrize("hash_name", ["xxh3_128", "blake3"])
async def test_what_is_right(root: Path, hash_name: str) -> None:
    holding, manifest = await asyncio.to_thread(held, root, hash_name)
    result = await verify_holding(holding, manifest, quiet)
    assert (result["ok"], result["bad"], result["chunks"], result["size"]) == (True, [], 4, manifest.size)
    assert (result["name"], result["path"], result["manifest"]) == ("n", str(root), manifest.digest)


def change(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


DAMAGE: list[tuple[Callable[[Path], None], list[tuple[str, int | None, int, int, str]]]] = [
    (lambda r: change(r / "a", MIB + 5), [("a", 1, MIB, MIB, "its hash differs")]),
    (lambda r: change(r / "c/d é", 0), [("c/d é", 3, 0, 9, "its hash differs")]),
    (lambda r: os.truncate(r / "a", MIB + 1), [
        ("a", 1, MIB, MIB, "it is shorter than it was"), ("a", 2, 2 * MIB, 1, "it is shorter than it was")]),
    (lambda r: (r / "c/d é").unlink(), [("c/d é", 3, 0, 9, "no such file or directory")]),
    (lambda r: (r / "b").unlink(), [("b", None, 0, 0, "no such file or directory")]),
    (lambda r: (r / "b").write_bytes(b"xy"), [("b", None, 0, 2, "it is 2 bytes longer")]),
    (lambda r: os.truncate(r / "a", 3 * MIB), [("a", None, 2 * MIB + 1, MIB - 1, f"it is {MIB - 1} bytes longer")]),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "expected"), DAMAGE, ids=range(len(DAMAGE)))
def test_what_is_wrong(
    root: Path, damage: Callable[[Path], None], expected: list[tuple[str, int | None, int, int, str]]
) -> None:
    holding, manifest = held(root)
    damage(root)
    found = bad_chunks(holding, manifest, quiet, threading.Event())
    assert [(b["file"], b["chunk"], b["offset"], b["length"], b["reason"]) for b in found] == expected


async def test_memory_has_no_file_to_verify() -> None:
    data = content(3)
    manifest = manifest_of({"": data})
    holding = Holding(record_of("m", manifest), "gold", None, (), (memoryview(data),))
    with pytest.raises(UsageError, match="lies in memory"):
        await verify_holding(holding, manifest, quiet)


def test_cancelling(root: Path) -> None:
    holding, manifest = held(root)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        bad_chunks(holding, manifest, quiet, stop)


def test_progress_ends_at_the_size(root: Path) -> None:
    holding, manifest = held(root)
    told: list[int] = []
    bad_chunks(holding, manifest, lambda done, _: told.append(done), threading.Event())
    assert max(told) == manifest.size
