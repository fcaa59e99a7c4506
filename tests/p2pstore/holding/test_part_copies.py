"""Parts of objects that nodes serve: again after a restart, unless their files have changed or they were given up."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2pstore.errors import NotHeld, StorageError
from p2pstore.holding.part_table import PartTable
from p2pstore.node import Node
from p2pstore.objects.chosen import Choice
from p2pstore.pull.get import GetRequest, GetResult
from tests.p2pstore.nodes import WAIT, Start, start
from tests.p2pstore.samples import MIB, content, read_tree, write_tree

__all__ = ["start"]

FILES = {"a": content(2 * MIB, 1), "b/c": content(3 * MIB, 2), "d": content(MIB, 3)}
PART = ("a", "b/c")


async def nodes(start: Start, tmp_path: Path) -> tuple[Node, Node]:
    """One that has all of it, and one that has a part."""
    one, two = await start("one"), await start("two")
    write_tree(tmp_path / "m", FILES)
    await one.register(tmp_path / "m", "models/n", hash_name="xxh3_128", chunk_size=MIB)
    assert (await get(two, tmp_path / "part", include=PART)).seeding
    return one, two


async def get(
    node: Node, dest: Path, name: str = "models/n", note: Callable[[str], None] = lambda _: None, **options: Any
) -> GetResult:
    choice = Choice(include=options.pop("include", ()))

    def emit(event: dict[str, Any]) -> None:
        if event["event"] == "note":
            note(event["text"])

    return await asyncio.wait_for(node.get(GetRequest(name, dest, choice=choice, **options), emit), WAIT)


async def holders(node: Node) -> dict[str, int]:
    """Chunks of the object, by who has them."""
    return {each["node"]: each["chunks"] for each in (await node.info("models/n"))["replicas"]}


async def test_it_is_served_by_the_next(start: Start, tmp_path: Path) -> None:
    one, two = await nodes(start, tmp_path)
    await two.close()
    assert await holders(one) == {"one": 6}
    two = await start("two")
    assert await holders(one) == {"one": 6, "two": 5}
    await one.close()
    three = await start("three")
    result = await get(three, tmp_path / "c", "models/n/b/c")
    assert (tmp_path / "c").read_bytes() == FILES["b/c"]
    assert result.peers == {"two": 3 * MIB}


async def test_a_file_that_changed_meanwhile_is_dropped(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = await nodes(start, tmp_path)
    await two.close()
    (tmp_path / "part" / "b" / "c").write_bytes(content(3 * MIB, 9))
    os.utime(tmp_path / "part" / "a", ns=(1, 1))  # other times, and the same bytes
    two = await start("two")
    assert f"{tmp_path / 'part' / 'b' / 'c'}: it was written to; it is no longer served of models/n" in caplog.text
    assert await holders(one) == {"one": 6, "two": 2}
    await two.close()
    caplog.clear()
    two = await start("two")
    assert caplog.text == "", "what it found the time before is remembered"
    assert await holders(one) == {"one": 6, "two": 2}
    await two.close()
    (tmp_path / "part" / "a").unlink()
    two = await start("two")
    assert await holders(one) == {"one": 6}
    with pytest.raises(NotHeld):
        await two.unregister("models/n")


async def test_what_was_withdrawn_stays_so(start: Start, tmp_path: Path) -> None:
    one, two = await nodes(start, tmp_path)
    await two.unregister("models/n")
    await two.close()
    await start("two")
    assert await holders(one) == {"one": 6}


async def test_what_came_whole_since_is_no_part(start: Start, tmp_path: Path) -> None:
    one, two = await nodes(start, tmp_path)
    await get(two, tmp_path / "whole")
    await two.close()
    two = await start("two")
    assert await holders(one) == {"one": 6, "two": 6}
    assert [each["role"] for each in (await two.unregister("models/n"))["withdrawn"]] == ["replica"]
    await two.close()
    await start("two")
    assert await holders(one) == {"one": 6}


async def test_whole_and_withdrawn_in_one_life(start: Start, tmp_path: Path) -> None:
    one, two = await nodes(start, tmp_path)
    await get(two, tmp_path / "whole")
    await two.unregister("models/n")
    await two.close()
    await start("two")
    assert await holders(one) == {"one": 6}
    assert read_tree(tmp_path / "part") == {path: FILES[path] for path in PART}


async def test_what_changed_while_it_was_served_is_forgotten(start: Start, tmp_path: Path) -> None:
    one, two = await nodes(start, tmp_path)
    (tmp_path / "part" / "a").write_bytes(b"other")
    two.parts.part_copies.lose((await one.info("models/n"))["manifest"], "it was seen")
    until = asyncio.get_running_loop().time() + WAIT
    while list(PartTable(two.parts.holdings._catalog).load()):
        assert asyncio.get_running_loop().time() < until
        await asyncio.sleep(0.02)
    await two.close()
    await start("two")
    assert await holders(one) == {"one": 6}


async def test_a_catalog_without_room(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError(path="catalog.db", detail=os.strerror(errno.ENOSPC))

    one, two = await nodes(start, tmp_path)
    await two.unregister("models/n")
    notes: list[str] = []
    with monkeypatch.context() as broken:
        broken.setattr(PartTable, "keep", full)
        assert (await get(two, tmp_path / "part", note=notes.append, include=PART)).seeding
    assert any("served until the agent ends, and not by the next one" in note for note in notes)
    assert await holders(one) == {"one": 6, "two": 5}
    with monkeypatch.context() as broken:
        broken.setattr(PartTable, "forget", full)
        with pytest.raises(StorageError):
            await two.unregister("models/n")
    assert await holders(one) == {"one": 6, "two": 5}
