"""What is verified and wrong is served no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pstore.errors import (
    NotHeld,
)
from p2pstore.node import Node
from tests.p2pstore.nodes import Start, damage, get, register, root, start
from tests.p2pstore.two_versions import two

__all__ = ["root", "start", "two"]


async def test_one_version_is_verified(two: tuple[Node, Node, str, str], tmp_path: Path) -> None:
    a, b, old, new = two
    await get(b, tmp_path / "newer", "n")
    assert (await b.verify(f"n@{old}", lambda *_: None))["path"] == str(tmp_path / "old")
    assert (await b.verify(f"n@{new}", lambda *_: None))["path"] == str(tmp_path / "newer")
    with pytest.raises(NotHeld, match=old[:10]):
        await a.verify(f"n@sha256:{old[:10]}", lambda *_: None)


async def test_what_is_wrong_is_withdrawn(start: Start, root: Path) -> None:
    a = await start("a")
    await register(a, root)
    damage(root / "z", a)
    result = await a.verify("n", lambda *_: None)
    assert (result["ok"], [each["file"] for each in result["bad"]]) == (False, ["z"])
    assert list(a.holdings.named("n")) == []
    counts = a.parts.counts.verifies
    assert counts.started == counts.ended == 1
