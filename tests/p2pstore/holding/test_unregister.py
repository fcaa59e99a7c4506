"""What a node has under a name is withdrawn, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pstore.errors import (
    CopyStays,
    NotHeld,
    ObjectNotFound,
)
from p2pstore.node import Node
from p2pstore.objects.chosen import Choice
from tests.p2pstore.nodes import FILES, Start, get, register, root, start
from tests.p2pstore.samples import read_tree
from tests.p2pstore.two_versions import two

__all__ = ["root", "start", "two"]


async def test_unregister(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root)
    await get(b, tmp_path / "b")
    with pytest.raises(ObjectNotFound):
        await a.unregister("none")
    first = await a.unregister("n")
    assert (first["withdrawn"], first["removed"]) == ([{"role": "gold", "path": str(root)}], False)
    with pytest.raises(NotHeld):
        await a.unregister("n")
    assert (await b.unregister("n"))["removed"]
    assert (await a.listing("", limit=0, after=""))["objects"] == []
    assert read_tree(root) == read_tree(tmp_path / "b") == FILES


async def test_one_version_goes_and_the_other_stays(two: tuple[Node, Node, str, str], tmp_path: Path) -> None:
    _, b, old, new = two
    await get(b, tmp_path / "newer", "n")
    gone = await b.unregister(f"n@sha256:{old[:10]}")
    assert (gone["name"], gone["manifest"], gone["replaced_by"]) == ("n", old, "a")
    assert [w["path"] for w in gone["withdrawn"]] == [str(tmp_path / "old")]
    assert [h.digest for h in b.holdings.named("n")] == [new]


async def test_a_part_goes_and_its_files_stay(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root)
    await get(b, tmp_path / "b", choice=Choice("", ("config.json",), (), None))
    with pytest.raises(CopyStays, match="it is a part of an object"):
        await b.unregister("n", delete=True)
    gone = await b.unregister("n")
    assert gone["withdrawn"] == [{"role": "part", "path": str(tmp_path / "b")}]
    assert (tmp_path / "b" / "config.json").read_bytes() == FILES["config.json"]
    with pytest.raises(NotHeld):
        await b.unregister("n")
