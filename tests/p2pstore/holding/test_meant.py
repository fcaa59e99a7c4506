"""What of a node's is meant, and why nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pstore.errors import (
    BadReference,
    DigestOfAnother,
    NotHeld,
    ObjectNotFound,
    PathNotFound,
    VersionNotFound,
    VersionNotHeld,
)
from p2pstore.holding import meant
from p2pstore.node import Node
from tests.p2pstore.nodes import Start, get, register, root, start
from tests.p2pstore.samples import write_tree
from tests.p2pstore.two_versions import two

__all__ = ["root", "start", "two"]


async def test_a_tag_whose_version_lies_elsewhere_is_called_as_it_was_typed(
    two: tuple[Node, Node, str, str], tmp_path: Path
) -> None:
    a, _, old, _ = two
    await a.tag(f"n@{old}", ["step-1"])
    said = f"this node holds nothing of 'n:step-1', which stands for sha256:{old[:12]}"
    for ask in (a.unregister, lambda text: a.verify(text, lambda *_: None)):
        with pytest.raises(VersionNotHeld) as fault:
            await ask("n:step-1")
        assert str(fault.value) == said
        assert "'mooncake info n:step-1'" in fault.value.hint
        with pytest.raises(NotHeld, match="'n:step-1@sha256:"):
            await ask(f"n:step-1@{old[:10]}")


async def test_what_cannot_be_meant(two: tuple[Node, Node, str, str], tmp_path: Path) -> None:
    a, b, _, new = two
    write_tree(tmp_path / "other", {"": b"other"})
    other = (await register(a, tmp_path / "other", "other"))["manifest"]
    for kind, name in (
        (BadReference, "n@sha256:what"),
        (VersionNotFound, f"n@{'0' * 64}"),
        (DigestOfAnother, f"n@{other}"),
        (ObjectNotFound, f"none@{new}"),
    ):
        for ask in (a.info, a.unregister, lambda text: a.verify(text, lambda *_: None)):
            with pytest.raises(kind):
                await ask(name)
        with pytest.raises(kind):
            await get(b, tmp_path / "nothing", name)
    assert not (tmp_path / "nothing").exists()


async def test_a_place_is_meant_by_its_path_or_a_link(start: Start, root: Path, tmp_path: Path) -> None:
    a = await start("a")
    await register(a, root)
    (tmp_path / "link").symlink_to(root)
    (tmp_path / "other").write_bytes(b"")
    for path in (root, tmp_path / "link"):
        assert (await meant.holding_of(a.parts, str(path))).root == root
    with pytest.raises(NotHeld):
        await meant.holding_of(a.parts, str(tmp_path / "other"))
    with pytest.raises(PathNotFound):
        await meant.holding_of(a.parts, str(tmp_path / "none"))


async def test_who_replaced_a_version(two: tuple[Node, Node, str, str]) -> None:
    a, b, old, new = two
    assert await meant.replaced_by(b.parts, "n", old) == "a"
    assert await meant.replaced_by(b.parts, "n", new) == ""
    await b.registry.store.close()
    assert await meant.replaced_by(b.parts, "n", old) == "", "that is not known now"
    assert a.name == "a"
