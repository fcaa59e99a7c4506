"""Some files of an object, one of them, or a range of it: by real nodes, into files."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from p2pstore.errors import (
    DestinationExists,
    ForeignContent,
    Interrupted,
    NotHeld,
    NotInObject,
    ObjectNotFound,
    UsageError,
)
from p2pstore.node import Node
from p2pstore.objects.chosen import Choice, parse_range
from p2pstore.pull.get import GetRequest, GetResult
from p2pstore.pull.tensor_file_destination import TensorFileSink
from tests.p2pstore.nodes import Start, leftovers, start
from tests.p2pstore.samples import MIB, content, read_tree, write_tree

__all__ = ["start"]

WAIT = 60.0
FILES = {
    "config.json": b"{}",
    "empty": b"",
    "shards/1.bin": content(3 * MIB + 5, 1),
    "shards/2.bin": content(4 * MIB, 2),
    "zeros": bytes(2 * MIB),
}


async def nodes(start: Start, root: Path, name: str = "models/n") -> tuple[Node, Node]:
    one, two = await start("one"), await start("two")
    write_tree(root, FILES, ("none",))
    await one.register(root, name, hash_name="xxh3_128", chunk_size=MIB)
    return one, two


async def get(node: Node, dest: Path, name: str = "models/n", **options: Any) -> GetResult:
    choice = {key: options.pop(key) for key in ("include", "exclude", "range") if key in options}
    request = GetRequest(name, dest, choice=Choice(**choice), **options)
    return await asyncio.wait_for(node.get(request, lambda _: None), WAIT)


async def test_patterns(start: Start, tmp_path: Path) -> None:
    _, two = await nodes(start, tmp_path / "m")
    result = await get(two, tmp_path / "d", include=("shards/1*", "*.json"))
    assert read_tree(tmp_path / "d") == {path: FILES[path] for path in ("config.json", "shards/1.bin")}
    assert (result.bytes_pulled, result.files, result.size) == (3 * MIB + 7, 2, 3 * MIB + 7)
    assert result.seeding
    assert not leftovers(tmp_path)
    result = await get(two, tmp_path / "e", exclude=("shards/",))
    assert set(read_tree(tmp_path / "e")) == {"config.json", "empty", "zeros"}
    assert (tmp_path / "e" / "none").is_dir()
    assert result.bytes_pulled <= 2, "zeros need not come"


async def test_a_file_and_a_directory_by_their_paths(start: Start, tmp_path: Path) -> None:
    _, two = await nodes(start, tmp_path / "m")
    result = await get(two, tmp_path / "c.json", "models/n/config.json")
    assert (tmp_path / "c.json").read_bytes() == b"{}"
    assert (result.name, result.files) == ("models/n", 1)
    await get(two, tmp_path / "s", "models/n/shards/")
    assert read_tree(tmp_path / "s") == {"1.bin": FILES["shards/1.bin"], "2.bin": FILES["shards/2.bin"]}
    await get(two, tmp_path / "s2", "models/n/shards", include=("2*",))
    assert read_tree(tmp_path / "s2") == {"2.bin": FILES["shards/2.bin"]}
    await get(two, tmp_path / "whole", "models/n/")
    assert read_tree(tmp_path / "whole") == FILES


async def test_the_longest_name_counts(start: Start, tmp_path: Path) -> None:
    one, two = await nodes(start, tmp_path / "m")
    write_tree(tmp_path / "other", {"": b"another object"})
    await one.register(tmp_path / "other", "models/n/config.json", hash_name="xxh3_128")
    await get(two, tmp_path / "got", "models/n/config.json")
    assert (tmp_path / "got").read_bytes() == b"another object"


async def test_a_peer_knows_where_a_name_ends(start: Start, tmp_path: Path) -> None:
    one, two = await nodes(start, tmp_path / "m")
    await get(two, tmp_path / "got", "models/n/config.json", peers=(one.record.control,))
    assert (tmp_path / "got").read_bytes() == b"{}"


async def test_ranges(start: Start, tmp_path: Path) -> None:
    _, two = await nodes(start, tmp_path / "m")
    data = FILES["shards/2.bin"]
    for number, (text, wanted) in enumerate(
        [("0-9", data[:10]), (f"{MIB - 3}-{2 * MIB + 3}", data[MIB - 3 : 2 * MIB + 4]), ("-7", data[-7:])]
    ):
        dest = tmp_path / f"r{number}"
        result = await get(two, dest, "models/n/shards/2.bin", range=parse_range(text))
        assert dest.read_bytes() == wanted
        assert result.bytes_pulled <= 3 * MIB
    with pytest.raises(UsageError, match="has no byte"):
        await get(two, tmp_path / "r", "models/n/empty", range=parse_range("0-"))
    assert not leftovers(tmp_path)


async def test_what_is_not_there(start: Start, tmp_path: Path) -> None:
    _, two = await nodes(start, tmp_path / "m")
    for name in ("models/n/conf", "models/n/shards/3.bin", "models/n/../m"):
        with pytest.raises(NotInObject):
            await get(two, tmp_path / "d", name)
    with pytest.raises(NotInObject):
        await get(two, tmp_path / "d", include=("*.safetensors",))
    with pytest.raises(ObjectNotFound):
        await get(two, tmp_path / "d", "models/x/config.json")
    assert set(os.listdir(tmp_path)) == {"m", "state of one", "state of two"}


async def test_again(start: Start, tmp_path: Path) -> None:
    _, two = await nodes(start, tmp_path / "m")
    await get(two, tmp_path / "d", include=("shards/1*",))
    result = await get(two, tmp_path / "d", include=("shards/1*",))
    assert (result.bytes_pulled, result.bytes_reused) == (0, 3 * MIB + 5)
    with pytest.raises(DestinationExists):
        await get(two, tmp_path / "d", include=("shards/2*",))
    await get(two, tmp_path / "d", include=("shards/",), force=True)
    assert set(read_tree(tmp_path / "d")) == {"shards/1.bin", "shards/2.bin"}
    (tmp_path / "d" / "mine").write_bytes(b"mine")
    with pytest.raises(ForeignContent):
        await get(two, tmp_path / "d", include=("shards/1*",), force=True)
    assert (tmp_path / "d" / "mine").read_bytes() == b"mine"


async def test_a_dry_run(start: Start, tmp_path: Path) -> None:
    one, two = await nodes(start, tmp_path / "m")
    result = await get(two, tmp_path / "d", include=("shards/1*",), dry_run=True)
    assert (result.bytes_pulled, result.files, result.dry_run) == (3 * MIB + 5, 1, True)
    assert not (tmp_path / "d").exists()
    assert (await get(one, tmp_path / "d", include=("shards/1*",), dry_run=True)).bytes_pulled == 0


async def test_what_is_here_is_copied(start: Start, tmp_path: Path) -> None:
    one, _ = await nodes(start, tmp_path / "m")
    result = await get(one, tmp_path / "d", "models/n/shards/2.bin", range=parse_range("5-"))
    assert result.bytes_pulled == 0
    assert (tmp_path / "d").read_bytes() == FILES["shards/2.bin"][5:]


async def test_a_partial_copy_serves_what_it_has(start: Start, tmp_path: Path) -> None:
    one, two = await nodes(start, tmp_path / "m")
    three = await start("three")
    await get(two, tmp_path / "d", include=("shards/2*", "config.json"))
    await one.close()
    result = await get(three, tmp_path / "e", "models/n/shards/2.bin")
    assert (tmp_path / "e").read_bytes() == FILES["shards/2.bin"]
    assert result.peers == {"two": 4 * MIB}
    (replica,) = [each for each in (await two.info("models/n"))["replicas"] if each["node"] == "two"]
    assert (replica["state"], replica["chunks"]) == ("partial", 5)


async def test_a_range_and_what_is_not_to_be_passed_on_are_not_served(start: Start, tmp_path: Path) -> None:
    _, two = await nodes(start, tmp_path / "m")
    await get(two, tmp_path / "r", "models/n/shards/2.bin", range=parse_range("0-99"))
    assert not (await get(two, tmp_path / "s", "models/n/shards/2.bin", seed=False)).seeding
    with pytest.raises(NotHeld):
        await two.unregister("models/n")
    assert (await get(two, tmp_path / "s", "models/n/shards/2.bin")).seeding, "what is there is served when asked"


async def test_a_part_is_withdrawn(start: Start, tmp_path: Path) -> None:
    one, two = await nodes(start, tmp_path / "m")
    await get(two, tmp_path / "d", include=("shards/2*",))
    found = await two.unregister("models/n")
    assert found["withdrawn"] == [{"role": "part", "path": str(tmp_path / "d")}]
    assert found["removed"] is False
    assert [each["node"] for each in (await one.info("models/n"))["replicas"]] == ["one"]
    with pytest.raises(NotHeld):
        await two.unregister("models/n")
    await get(two, tmp_path / "d", include=("shards/2*",))
    assert len((await one.info("models/n"))["replicas"]) == 2


async def test_a_part_that_changes_is_served_no_more(start: Start, tmp_path: Path) -> None:
    """Whether somebody reads of it or not: the second get may take all from the first node."""
    one, two = await nodes(start, tmp_path / "m")
    three = await start("three")
    await get(two, tmp_path / "d", include=("shards/2*",))
    (tmp_path / "d" / "shards" / "2.bin").write_bytes(content(4 * MIB, 99))
    result = await get(three, tmp_path / "e", "models/n/shards/2.bin", peers=(two.record.control,))
    assert (tmp_path / "e").read_bytes() == FILES["shards/2.bin"]
    assert result.peers == {"one": 4 * MIB}

    async def withdrawn() -> bool:
        return "two" not in {each["node"] for each in (await one.info("models/n"))["replicas"]}

    until = asyncio.get_running_loop().time() + WAIT
    while not await withdrawn():
        assert asyncio.get_running_loop().time() < until
        await asyncio.sleep(0.05)


async def test_all_of_it_after_a_part(start: Start, tmp_path: Path) -> None:
    one, two = await nodes(start, tmp_path / "m")
    await get(two, tmp_path / "d", include=("shards/2*",))
    result = await get(two, tmp_path / "whole")
    assert read_tree(tmp_path / "whole") == FILES
    assert (result.seeding, result.bytes_pulled) == (True, 3 * MIB + 7)
    (mine,) = [each for each in (await one.info("models/n"))["replicas"] if each["node"] == "two"]
    assert mine["state"] == "complete"
    assert [each["role"] for each in (await two.unregister("models/n"))["withdrawn"]] == ["replica"]
    with pytest.raises(NotHeld):
        await two.unregister("models/n")


async def test_tensors_and_files_at_once(start: Start, tmp_path: Path) -> None:
    _, two = await nodes(start, tmp_path / "m")
    with pytest.raises(UsageError, match="one of them"):
        await get(two, tmp_path / "d", include=("*.json",), tensors=("*",))


async def test_what_was_interrupted_goes_on(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, two = await nodes(start, tmp_path / "m")
    filled, taken = TensorFileSink.filled, 0

    def filled_until(self: TensorFileSink, count: int) -> None:
        nonlocal taken
        taken += count  # however large the pieces are, and however many workers have begun a chunk
        if taken > 5 * MIB:
            raise Interrupted(detail="the test ends it")
        filled(self, count)

    monkeypatch.setattr(TensorFileSink, "filled", filled_until)
    with pytest.raises(Interrupted):
        await get(two, tmp_path / "d", include=("shards/",))
    monkeypatch.undo()
    result = await get(two, tmp_path / "d", include=("shards/",))
    assert result.bytes_reused > 0
    assert result.bytes_pulled + result.bytes_reused == 7 * MIB + 5
    assert read_tree(tmp_path / "d") == {path: FILES[path] for path in ("shards/1.bin", "shards/2.bin")}
