"""Versions of an object, and what of a node's is not the newest."""

from __future__ import annotations

import pytest

from p2pstore.errors import (
    ObjectNotFound,
    UsageError,
)
from p2pstore.node import Node
from tests.p2pstore.nodes import root, start
from tests.p2pstore.two_versions import two

__all__ = ["root", "start", "two"]


async def test_what_is_superseded_is_marked(two: tuple[Node, Node, str, str]) -> None:
    a, b, old, new = two
    assert [(v["manifest"], v["current"], v["superseded"]) for v in (await a.history("n"))["versions"]] == [
        (new, True, False),
        (old, False, True),
    ]
    newer, older = await a.info("n"), await a.info(f"n@{old}")
    assert (newer["superseded"], newer["current"], [v["manifest"] for v in newer["older"]]) == (False, new, [old])
    assert (older["superseded"], older["current"]) == (True, new)
    assert newer["older"][0]["holders"] == [{"node": "b", "state": "complete"}]
    (listed,) = (await a.listing("", limit=0, after=""))["objects"]
    assert (listed["superseded"], listed["supersedes"]) == (1, old)
    assert (await b.verify("n", lambda *_: None))["superseded"]
    assert not (await a.verify("n", lambda *_: None))["superseded"]
    (mine,) = (await b.superseded())["superseded"]
    assert (mine["name"], mine["manifest"]) == ("n", old)
    assert await a.superseded() == {"superseded": []}
    await b.registry.store.close()
    assert await b.superseded() == {"superseded": None}
    with pytest.raises(UsageError, match="is one version"):
        await a.history(f"n@{old}")
    with pytest.raises(ObjectNotFound):
        await a.history("none")
