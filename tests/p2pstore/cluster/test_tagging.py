"""Tags, as somebody types them."""

from __future__ import annotations

import pytest

from p2pstore.cluster.registry import Registry
from p2pstore.cluster.tagging import list_tags, tag, untag
from p2pstore.errors import BadTag, ObjectNotFound, TagNotFound, UsageError
from tests.p2pstore.cluster.registries import a, b, server, thing

__all__ = ["a", "b", "server"]

ONE, TWO = thing("x", "1" * 64), thing("x", "2" * 64, created=2.0)


async def test_a_tag_is_given_moved_listed_and_removed(a: Registry, b: Registry) -> None:
    await a.publish(ONE)
    given = await tag(b, "x", ["v1", "stable", "v1"], "b")
    assert given == {
        "name": "x",
        "manifest": ONE.manifest,
        "tags": [{"tag": "v1", "before": ""}, {"tag": "stable", "before": ""}],
    }
    await a.publish(TWO, force=True)
    moved = await tag(b, "x", ["stable"], "b")
    assert (moved["manifest"], moved["tags"]) == (TWO.manifest, [{"tag": "stable", "before": ONE.manifest}])
    listed = (await list_tags(a, "x"))["tags"]
    assert [(each["tag"], each["manifest"]) for each in listed] == [("stable", TWO.manifest), ("v1", ONE.manifest)]
    assert [each["tag"] for each in (await list_tags(a, "x:v1"))["tags"]] == ["v1"]
    assert await untag(a, "x:v1") == {"name": "x", "tag": "v1", "manifest": ONE.manifest}
    with pytest.raises(TagNotFound):
        await list_tags(a, "x:v1")
    with pytest.raises(TagNotFound):
        await untag(a, "x:v1")


async def test_what_makes_no_sense_changes_nothing(a: Registry) -> None:
    await a.publish(ONE)
    with pytest.raises(BadTag):
        await tag(a, "x", ["good", "no tag"], "a")
    assert await list_tags(a, "x") == {"tags": []}
    with pytest.raises(ObjectNotFound):
        await tag(a, "none", ["v1"], "a")
    with pytest.raises(ObjectNotFound):
        await list_tags(a, "none")
    for name in ("x", "x@" + "1" * 64, "x:v1@" + "1" * 64):
        with pytest.raises(UsageError, match="names no tag; write NAME:TAG"):
            await untag(a, name)
