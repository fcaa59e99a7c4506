"""Objects, page by page."""

from __future__ import annotations

from pathlib import Path

from tests.p2pstore.nodes import Start, get, register, root, start
from tests.p2pstore.two_versions import two

__all__ = ["root", "start", "two"]


async def test_pages_follow_one_another(start: Start, root: Path) -> None:
    a, b = await start("a"), await start("b")
    for name in ("m/1", "m/2", "m/3", "n"):
        await register(a, root, name)
    first = await b.listing("m/", limit=2, after="")
    assert ([each["name"] for each in first["objects"]], first["next"]) == (["m/1", "m/2"], "m/2")
    second = await b.listing("m/", limit=2, after=first["next"])
    assert ([each["name"] for each in second["objects"]], second["next"]) == (["m/3"], None)


async def test_it_says_what_lies_here_and_how_many_hold_it(start: Start, root: Path, tmp_path: Path) -> None:
    a, b, c = [await start(name) for name in "abc"]
    await register(a, root)
    await get(b, tmp_path / "b")
    for node, here in ((a, [str(root)]), (b, [str(tmp_path / "b")]), (c, [])):
        (shown,) = (await node.listing("", limit=0, after=""))["objects"]
        assert (shown["here"], shown["complete"], shown["partial"], shown["superseded"]) == (here, 2, 0, 0)
