"""A get of a new version pulls what this node has nowhere: not in other objects, not in what the get replaces."""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from p2pstore.errors import DestinationExists, Interrupted
from p2pstore.objects import tree_hash
from p2pstore.pull.old_chunks import find_places
from tests.p2pstore.nodes import Start, get, register, start
from tests.p2pstore.samples import MIB, content, manifest_of, read_tree, write_tree
from tests.p2pstore.tensors.checkpoints import Shapes, file_of

__all__ = ["start"]

TENSORS = 40
TENSOR_BYTES = 2 * MIB
SHARDS = 2
CHANGED = {24, 25}  # one in twenty, side by side as layers that were trained on are


def tensor(number: int, version: int) -> bytes:
    return random.Random(number * 1000 + version).randbytes(TENSOR_BYTES)


def shard(versions: Mapping[int, int]) -> bytes:
    """Tensors as safetensors lays them out: the header's length, the header in JSON, the tensors one after another."""
    header: dict[str, Any] = {}
    for place, number in enumerate(sorted(versions)):
        offsets = [place * TENSOR_BYTES, (place + 1) * TENSOR_BYTES]
        header[f"layers.{number}.weight"] = {"dtype": "BF16", "shape": [TENSOR_BYTES // 2], "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(tensor(n, versions[n]) for n in sorted(versions))


def checkpoint(step: int, changed: set[int]) -> dict[str, bytes]:
    """A checkpoint whose tensors of the numbers ``changed`` differ from those of step 0."""
    versions = {number: step if number in changed else 0 for number in range(TENSORS)}
    each = TENSORS // SHARDS
    files = {
        f"model-{s + 1:05}-of-{SHARDS:05}.safetensors": shard({n: versions[n] for n in range(s * each, (s + 1) * each)})
        for s in range(SHARDS)
    }
    return files | {"config.json": json.dumps({"step": step}).encode()}


LEAST = len(CHANGED) * TENSOR_BYTES
MOST = LEAST + 2 * MIB  # a chunk at each end, which is shared with a tensor that did not change, and the small file


@pytest.fixture
def versions(tmp_path: Path) -> tuple[Path, Path]:
    write_tree(tmp_path / "old", checkpoint(0, set()))
    write_tree(tmp_path / "new", checkpoint(1, CHANGED))
    return tmp_path / "old", tmp_path / "new"


async def test_of_a_checkpoint_with_5_percent_changed_about_5_percent_is_pulled(
    start: Start, versions: tuple[Path, Path], tmp_path: Path
) -> None:
    a, b = [await start(name) for name in "ab"]
    old, new = versions
    await register(a, old, "step-0")
    await register(a, new, "step-1")
    await get(b, tmp_path / "b0", "step-0")
    estimate = await get(b, tmp_path / "b1", "step-1", dry_run=True)
    result = await get(b, tmp_path / "b1", "step-1")
    found = read_tree(tmp_path / "b1")
    assert found == read_tree(new)
    size = sum(map(len, found.values()))
    assert result.bytes_pulled + result.bytes_reused == size
    assert LEAST < result.bytes_pulled <= MOST < 0.08 * size
    assert estimate.bytes_pulled == result.bytes_pulled


async def test_what_a_get_replaces_is_reused(start: Start, versions: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = [await start(name) for name in "ab"]
    old, new = versions
    await register(a, new, "step-1")
    dest = tmp_path / "model"
    shutil.copytree(old, dest)
    with pytest.raises(DestinationExists):
        await get(b, dest, "step-1")
    estimate = await get(b, dest, "step-1", force=True, dry_run=True)
    result = await get(b, dest, "step-1", force=True)
    found = read_tree(dest)
    assert found == read_tree(new)
    assert LEAST < result.bytes_pulled <= MOST
    assert result.bytes_pulled + result.bytes_reused == sum(map(len, found.values()))
    assert estimate.bytes_pulled == result.bytes_pulled


SHAPES: Shapes = {f"layers.{number}.weight": ("F32", (MIB // 8,)) for number in range(16)}
BEFORE = {"model.safetensors": file_of(SHAPES, {"step": "1000"})}
LONGER = {"model.safetensors": file_of(SHAPES, {"step": "1000", "x": "y"})}
"""The same tensors, after a header of eight bytes more."""
HEADER = 8 + int.from_bytes(LONGER["model.safetensors"][:8], "little")


@pytest.mark.parametrize("where", ["held", "replaced"])
async def test_of_a_checkpoint_with_a_longer_header_the_header_is_pulled(
    start: Start, tmp_path: Path, where: str
) -> None:
    a, b = [await start(name) for name in "ab"]
    assert len(LONGER["model.safetensors"]) == len(BEFORE["model.safetensors"]) + 8
    write_tree(tmp_path / "old", BEFORE)
    write_tree(tmp_path / "new", LONGER)
    await register(a, tmp_path / "old", "step-0")
    await register(a, tmp_path / "new", "step-1")
    dest = tmp_path / "b"
    if where == "held":
        await get(b, tmp_path / "b0", "step-0")
    else:
        write_tree(dest, BEFORE)
    result = await get(b, dest, "step-1", force=True)
    assert read_tree(dest) == LONGER
    assert (result.bytes_pulled, result.bytes_reused) == (HEADER, 8 * MIB)


async def test_an_object_as_earlier_versions_cut_it_is_got_and_reused(start: Start, tmp_path: Path) -> None:
    a, b = [await start(name) for name in "ab"]
    write_tree(tmp_path / "old", BEFORE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_hash, "find_origins", lambda *_: {})
        made = await register(a, tmp_path / "old", "step-0")
    assert made["manifest"] == manifest_of(BEFORE).digest
    await get(b, tmp_path / "b0", "step-0")
    assert read_tree(tmp_path / "b0") == BEFORE
    write_tree(tmp_path / "b1", BEFORE)
    result = await get(b, tmp_path / "b1", "step-0")  # compared, and found to be the object
    assert (result.bytes_pulled, result.seeding) == (0, True)
    (tmp_path / "b1" / "model.safetensors").write_bytes(LONGER["model.safetensors"][:-1] + b"?")
    await b.unregister("step-0")
    result = await get(b, tmp_path / "b1", "step-0", force=True)
    assert read_tree(tmp_path / "b1") == BEFORE


async def test_chunks_that_moved_to_other_files_and_places_are_reused(start: Start, tmp_path: Path) -> None:
    a, b = [await start(name) for name in "ab"]
    parts = [content(MIB, n) for n in range(5)]
    write_tree(tmp_path / "new", {"x": parts[2] + parts[0], "sub/y": parts[1] + parts[4]})
    write_tree(tmp_path / "dest", {"a": parts[0] + parts[1] + parts[2], "b": parts[3]})
    await register(a, tmp_path / "new", chunk_size=MIB)
    result = await get(b, tmp_path / "dest", wipe=True)
    assert (result.bytes_reused, result.bytes_pulled) == (3 * MIB, MIB)
    assert read_tree(tmp_path / "dest") == {"x": parts[2] + parts[0], "sub/y": parts[1] + parts[4]}


async def test_a_file_that_is_replaced_is_reused(start: Start, tmp_path: Path) -> None:
    a, b = [await start(name) for name in "ab"]
    old = content(4 * MIB + 5, 1)
    (tmp_path / "new").write_bytes(old[:MIB] + content(MIB, 2) + old[2 * MIB :])
    (tmp_path / "dest").write_bytes(old)
    await register(a, tmp_path / "new", chunk_size=MIB)
    result = await get(b, tmp_path / "dest", force=True)
    assert (result.bytes_reused, result.bytes_pulled) == (3 * MIB + 5, MIB)
    assert (tmp_path / "dest").read_bytes() == (tmp_path / "new").read_bytes()


async def test_what_changes_between_the_look_and_the_copy_is_pulled(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = [await start(name) for name in "ab"]
    data = content(4 * MIB, 1)
    (tmp_path / "new").write_bytes(data + b"more")
    dest = tmp_path / "dest"
    dest.write_bytes(data)
    await register(a, tmp_path / "new", chunk_size=MIB)

    def meanwhile(*args: Any) -> Any:
        found = find_places(*args)
        assert len(found) == 4
        dest.write_bytes(b"?" + data[1 : 2 * MIB])
        return found

    monkeypatch.setattr("p2pstore.pull.get.find_places", meanwhile)
    result = await get(b, dest, force=True)
    assert dest.read_bytes() == data + b"more"
    assert result.bytes_reused == MIB


def test_links_and_devices_at_the_destination_are_not_looked_at(tmp_path: Path) -> None:
    data = content(MIB, 1)
    (tmp_path / "elsewhere").write_bytes(data)
    dest = tmp_path / "dest"
    dest.mkdir()
    (dest / "link").symlink_to(tmp_path / "elsewhere")
    (dest / "null").symlink_to("/dev/zero")
    manifest = manifest_of({"": data}, MIB)
    assert find_places(dest, manifest, Event()) == {}
    assert find_places(dest / "link", manifest, Event()) == {}
    assert find_places(tmp_path / "missing", manifest, Event()) == {}
    (dest / "real").write_bytes(data)
    assert list(find_places(dest, manifest, Event()).values()) == [(str(dest / "real"), 0)]


def test_the_look_can_be_cancelled(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content(MIB))
    cancelled = Event()
    cancelled.set()
    with pytest.raises(Interrupted):
        find_places(tmp_path, manifest_of({"": b"x"}, MIB), cancelled)
