"""A prune, of real nodes: what it says it would do, and what it does."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from p2pstore.holding.eviction import Criteria
from p2pstore.holding.prune import PruneRequest
from p2pstore.node import Node
from tests.p2pstore.nodes import Start, get, register, start

__all__ = ["start"]

NAMES = ("a", "b", "c")


@pytest.fixture
async def beta(start: Start, tmp_path: Path) -> tuple[Node, Node]:
    """One that registered three objects, and one that got them."""
    alpha, node = await start("alpha"), await start("beta")
    for number, name in enumerate(NAMES, 1):
        (tmp_path / name).write_bytes(name.encode() * 100 * number)
        await register(alpha, tmp_path / name, name)
        await get(node, tmp_path / f"copy-{name}", name)
    return alpha, node


async def prune(node: Node, **options: Any) -> tuple[list[str], list[str], int]:
    heard: list[tuple[int, int]] = []
    done = await node.prune(PruneRequest(**options), lambda *progress: heard.append(progress))
    assert all(after > before for (before, _), (after, _) in pairwise(heard))
    assert done["dry_run"] == options.get("dry_run", False)
    return [copy["name"] for copy in done["deleted"]], [copy["name"] for copy in done["kept"]], done["bytes"]


async def test_a_dry_run_says_what_would_go_and_changes_nothing(beta: tuple[Node, Node], tmp_path: Path) -> None:
    alpha, node = beta
    await node.pin(["a"], pinned=True)
    await alpha.unregister("b")
    before = node.parts.cache.copies()
    assert await prune(node, dry_run=True) == (["c"], ["b"], 300)
    assert await prune(node, dry_run=True, last_copies=True) == (["b", "c"], [], 500)
    assert node.parts.cache.copies() == before
    assert await prune(node) == (["c"], ["b"], 300)
    assert sorted(name for name in os.listdir(tmp_path) if name.startswith("copy-")) == ["copy-a", "copy-b"]


async def test_of_two_copies_of_one_content_a_dry_run_leaves_one(beta: tuple[Node, Node], tmp_path: Path) -> None:
    alpha, node = beta
    await get(node, tmp_path / "copy-again", "a")
    await alpha.unregister("a")
    only = Criteria(keeps=lambda name: name != "a")
    gone, kept, size = await prune(node, criteria=only, dry_run=True)
    assert (gone, kept, size) == (["a"], ["a"], 100)
    assert await prune(node, criteria=only) == (gone, kept, size)


async def test_only_what_was_confirmed_goes(beta: tuple[Node, Node], tmp_path: Path) -> None:
    _, node = beta
    digests = {copy.name: copy.manifest for copy in node.parts.cache.copies()}
    only = (("a", str(tmp_path / "copy-a"), digests["a"]), ("b", str(tmp_path / "copy-b"), digests["c"]))
    assert await prune(node, only=only) == (["a"], [], 100)
    assert [copy.name for copy in node.parts.cache.copies()] == ["b", "c"]


async def test_what_is_named_and_stays_is_told_of(beta: tuple[Node, Node], tmp_path: Path) -> None:
    _, node = beta
    await node.pin(["a"], pinned=True)
    (copy,) = [copy for copy in node.parts.cache.copies() if copy.name == "a"]
    assert await prune(node, only=((copy.name, copy.place, copy.manifest),)) == ([], ["a"], 0)


async def test_criteria(beta: tuple[Node, Node]) -> None:
    _, node = beta
    assert await prune(node, criteria=Criteria(older_than=3600)) == ([], [], 0)
    assert await prune(node, criteria=Criteria(larger_than=200, keeps=lambda name: name == "c")) == (["b"], [], 200)
