"""Some tensors of an object, in safetensors files of their own: the package reads them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors

from p2pstore.errors import (
    BadTensors,
    DestinationExists,
    ForeignContent,
    Interrupted,
    PartChanged,
    TensorNotFound,
    UsageError,
)
from p2pstore.node import Node
from p2pstore.pull.get import GetRequest, GetResult
from p2pstore.pull.tensor_file_destination import TensorFileDestination, TensorFileSink
from tests.p2pstore.nodes import Start, leftovers, start
from tests.p2pstore.samples import MIB, read_tree, write_tree
from tests.p2pstore.tensors.checkpoints import Shapes, file_of, framed, index_of

__all__ = ["start"]

WAIT = 60.0
SHARDS: dict[str, Shapes] = {
    "model-1.safetensors": {f"model.layers.{n}.w": ("F32", (200_000,)) for n in range(6)},
    "model-2.safetensors": {f"model.layers.{n}.w": ("F32", (200_000,)) for n in range(6, 12)},
}
FILES = {
    "config.json": b"{}",
    "model.safetensors.index.json": index_of(SHARDS),
    **{path: file_of(shapes, {"format": "pt"}, seed) for seed, (path, shapes) in enumerate(SHARDS.items())},
}


def contents(data: bytes) -> dict[str, bytes]:
    return {name: tensor["data"] for name, tensor in safetensors.deserialize(data)}


ALL = {name: data for path in SHARDS for name, data in contents(FILES[path]).items()}


async def register(node: Node, root: Path, files: dict[str, bytes] = FILES, **options: Any) -> None:
    write_tree(root, files)
    await node.register(root, "n", hash_name="xxh3_128", chunk_size=MIB, **options)


async def get(node: Node, dest: Path, *patterns: str, **options: Any) -> GetResult:
    request = GetRequest("n", dest, tensors=patterns, **options)
    return await asyncio.wait_for(node.get(request, lambda _: None), WAIT)


def tensors_at(dest: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path, data in read_tree(dest).items():
        if path.endswith(".safetensors") or not path:
            found.update(contents(data))
    return found


async def test_a_part_of_a_checkpoint(start: Start, tmp_path: Path) -> None:
    one, two = await start("one"), await start("two")
    await register(one, tmp_path / "m")
    dest = tmp_path / "part"
    result = await get(two, dest, "model.layers.2.*", "model.layers.4.w", "model.layers.11.*")
    names = {f"model.layers.{n}.w" for n in (2, 4, 11)}
    assert tensors_at(dest) == {name: ALL[name] for name in names}
    assert set(read_tree(dest)) == {*SHARDS, "model.safetensors.index.json"}
    assert set(json.loads((dest / "model.safetensors.index.json").read_text())["weight_map"]) == names
    assert result.tensors == 3
    assert result.size == sum(map(len, read_tree(dest).values()))
    assert not result.seeding
    assert not leftovers(tmp_path)
    assert len(two.holdings) == 0
    assert result.bytes_pulled <= 9 * MIB
    assert result.bytes_pulled + result.bytes_reused >= 3 * 800_000


async def test_a_file_that_is_not_needed_is_not_looked_at(start: Start, tmp_path: Path) -> None:
    one, two = await start("one"), await start("two")
    await register(one, tmp_path / "m", {**FILES, "model-2.safetensors": framed(b"no header")})
    await get(two, tmp_path / "part", "model.layers.0.*")
    assert set(read_tree(tmp_path / "part")) == {"model-1.safetensors", "model.safetensors.index.json"}
    with pytest.raises(BadTensors, match=r"'model-2.safetensors' of n cannot be read"):
        await get(two, tmp_path / "other", "*")
    assert not leftovers(tmp_path)


async def test_a_single_file(start: Start, tmp_path: Path) -> None:
    one, two = await start("one"), await start("two")
    await register(one, tmp_path / "m", {"": FILES["model-1.safetensors"]})
    await get(two, tmp_path / "part", "*.3.w")
    assert contents((tmp_path / "part").read_bytes()) == {"model.layers.3.w": ALL["model.layers.3.w"]}
    found = safetensors.safe_open(tmp_path / "part", "np")
    assert found.metadata() == {"format": "pt"}


async def test_all_of_it(start: Start, tmp_path: Path) -> None:
    one, two = await start("one"), await start("two")
    await register(one, tmp_path / "m")
    await get(two, tmp_path / "all", "*")
    assert tensors_at(tmp_path / "all") == ALL


async def test_of_an_object_that_is_here(start: Start, tmp_path: Path) -> None:
    one = await start("one")
    await register(one, tmp_path / "m")
    result = await get(one, tmp_path / "part", "*.3.w", "*.4.w")
    assert result.bytes_pulled == 0
    assert tensors_at(tmp_path / "part") == {f"model.layers.{n}.w": ALL[f"model.layers.{n}.w"] for n in (3, 4)}


async def test_a_dry_run_writes_nothing(start: Start, tmp_path: Path) -> None:
    one, two = await start("one"), await start("two")
    await register(one, tmp_path / "m")
    result = await get(two, tmp_path / "part", "*.3.w", dry_run=True)
    assert (result.tensors, result.dry_run) == (1, True)
    assert 800_000 <= result.bytes_pulled <= 2 * MIB
    assert not (tmp_path / "part").exists()
    assert not leftovers(tmp_path)
    assert (await get(one, tmp_path / "part", "*.3.w", dry_run=True)).bytes_pulled == 0


async def test_what_is_interrupted_goes_on(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = await start("one"), await start("two")
    await register(one, tmp_path / "m")
    filled = TensorFileSink.filled
    brought = 0

    def broken(sink: TensorFileSink, count: int) -> None:
        nonlocal brought
        brought += count
        if brought > 6 * MIB:
            raise Interrupted(detail="for the test")
        filled(sink, count)

    monkeypatch.setattr(TensorFileSink, "filled", broken)
    with pytest.raises(Interrupted):
        await get(two, tmp_path / "part", "*")
    assert not (tmp_path / "part").exists()
    assert leftovers(tmp_path)
    monkeypatch.setattr(TensorFileSink, "filled", filled)
    result = await get(two, tmp_path / "part", "*")
    assert tensors_at(tmp_path / "part") == ALL
    assert result.bytes_reused >= 2 * MIB
    assert not leftovers(tmp_path)


async def test_what_other_patterns_left_is_not_gone_on_with(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await start("one"), await start("two")
    await register(one, tmp_path / "m")
    finish = TensorFileDestination.finish

    def broken(_: TensorFileDestination) -> Any:
        raise Interrupted(detail="for the test")

    monkeypatch.setattr(TensorFileDestination, "finish", broken)
    with pytest.raises(Interrupted):
        await get(two, tmp_path / "part", "*.1.w", "*.2.w")
    monkeypatch.setattr(TensorFileDestination, "finish", finish)
    await get(two, tmp_path / "part", "*.2.w", "*.3.w")
    assert tensors_at(tmp_path / "part") == {f"model.layers.{n}.w": ALL[f"model.layers.{n}.w"] for n in (2, 3)}
    assert not leftovers(tmp_path)


async def test_what_is_there_stays(start: Start, tmp_path: Path) -> None:
    one, two = await start("one"), await start("two")
    await register(one, tmp_path / "m")
    dest = tmp_path / "part"
    await get(two, dest, "*.1.w", "*.7.w")
    with pytest.raises(DestinationExists):
        await get(two, dest, "*.2.w")
    await get(two, dest, "*.2.w", force=True)
    assert tensors_at(dest) == {"model.layers.2.w": ALL["model.layers.2.w"]}
    (dest / "mine").write_text("x")
    with pytest.raises(ForeignContent):
        await get(two, dest, "*.2.w", force=True)
    await get(two, dest, "*.3.w", wipe=True)
    assert tensors_at(dest) == {"model.layers.3.w": ALL["model.layers.3.w"]}


async def test_an_empty_directory_is_filled(start: Start, tmp_path: Path) -> None:
    one, two = await start("one"), await start("two")
    await register(one, tmp_path / "m")
    (tmp_path / "part").mkdir()
    await get(two, tmp_path / "part", "*.1.w")
    assert tensors_at(tmp_path / "part") == {"model.layers.1.w": ALL["model.layers.1.w"]}


@pytest.mark.parametrize("at", [10, -10])
async def test_another_program_writes_to_it(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    one, two = await start("one"), await start("two")
    await register(one, tmp_path / "m")
    finish = TensorFileDestination.finish

    def written(destination: TensorFileDestination) -> Any:
        path = destination.file_path(0)
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        with open(path, "r+b") as stream:
            stream.write(data)
        return finish(destination)

    monkeypatch.setattr(TensorFileDestination, "finish", written)
    with pytest.raises(PartChanged):
        await get(two, tmp_path / "part", "*.1.w", "*.3.w")
    assert not (tmp_path / "part").exists()
    monkeypatch.setattr(TensorFileDestination, "finish", finish)
    await get(two, tmp_path / "part", "*.1.w", "*.3.w")
    assert tensors_at(tmp_path / "part") == {f"model.layers.{n}.w": ALL[f"model.layers.{n}.w"] for n in (1, 3)}


async def test_what_cannot_be(start: Start, tmp_path: Path) -> None:
    one, two = await start("one"), await start("two")
    await register(one, tmp_path / "m")
    with pytest.raises(TensorNotFound, match="it has 12 tensors"):
        await get(two, tmp_path / "part", "layers.0")
    with pytest.raises(UsageError):
        await get(two, tmp_path / "part", "")
    await one.register(tmp_path / "m" / "config.json", "c", hash_name="xxh3_128")
    with pytest.raises(BadTensors, match=r"^c cannot be read for tensors"):
        await two.get(GetRequest("c", tmp_path / "part", tensors=("*",)), lambda _: None)
    assert not (tmp_path / "part").exists()
    assert not leftovers(tmp_path)
