"""Two nodes that have an object in two versions: one the newer, the other the older."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pstore.node import Node
from tests.p2pstore.nodes import Start, register
from tests.p2pstore.samples import MIB, content, write_tree

OLD = {"config.json": b"old", "w": content(2 * MIB, 1)}
NEW = {"config.json": b"new", "w": content(2 * MIB, 2)}


@pytest.fixture
async def two(start: Start, tmp_path: Path) -> tuple[Node, Node, str, str]:
    """Two nodes, and the digests of two versions of ``n``: the first node has the newer, the second the older."""
    a, b = await start("a"), await start("b")
    write_tree(tmp_path / "old", OLD)
    write_tree(tmp_path / "new", NEW)
    old = (await register(b, tmp_path / "old"))["manifest"]
    new = (await register(a, tmp_path / "new", force=True))["manifest"]
    return a, b, old, new
