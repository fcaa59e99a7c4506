"""Tags lead to versions, move at once, and stay when nobody holds what they lead to."""

from __future__ import annotations

import asyncio

import pytest

from p2pstore.cluster import records, tags
from p2pstore.cluster.records import TagRecord
from p2pstore.cluster.registry import Registry
from p2pstore.cluster.tags import (
    describe_tags,
    find_tag,
    move_tag,
    remove_tag,
    stale_tags,
    tag_version,
    tagged,
    tags_of,
)
from p2pstore.cluster.versions import earlier_versions, forget_versions, look_up, unknown
from p2pstore.errors import BadTag, MetadataUnavailable, ObjectNotFound, TagNotFound
from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.metadata.store import Delete, KeyValue, Put
from p2pstore.objects.reference import parse_reference
from tests.p2pstore.cluster.registries import a, b, registry, server, thing

__all__ = ["a", "b", "server"]

ONE, TWO = thing("x", "1" * 64), thing("x", "2" * 64, created=2.0)


async def test_a_tag_leads_to_a_version_for_all(a: Registry, b: Registry) -> None:
    await a.publish(ONE)
    assert await move_tag(a, ONE, "v1", "a") is None
    found = await find_tag(b, "x", "v1")
    assert found is not None
    assert (found.version, found.by, found.tag) == (ONE, "a", "v1")
    assert await look_up(b, parse_reference("x:v1")) == ONE
    assert await find_tag(b, "x", "v2") is None
    assert isinstance(await unknown(b, parse_reference("x:v2")), TagNotFound)
    assert isinstance(await unknown(b, parse_reference("y:v1")), ObjectNotFound)
    assert not isinstance(await unknown(b, parse_reference("y:v1")), TagNotFound)


async def test_it_moves_and_says_from_where(a: Registry, b: Registry) -> None:
    assert await tag_version(a, ONE, ["v1", "w"], "a") == [{"tag": "v1", "before": ""}, {"tag": "w", "before": ""}]
    assert await tag_version(b, TWO, ["v1"], "b") == [{"tag": "v1", "before": ONE.manifest}]
    assert await tag_version(b, TWO, ["v1"], "b") == [{"tag": "v1", "before": TWO.manifest}]
    assert [(t.tag, t.manifest, t.by) for t in await tags_of(a, "x")] == [
        ("v1", TWO.manifest, "b"),
        ("w", ONE.manifest, "a"),
    ]
    assert await tagged(a, "x") == {ONE.manifest, TWO.manifest}
    assert await tagged(a, "x", {"w"}) == {TWO.manifest}
    with pytest.raises(BadTag):
        await move_tag(a, ONE, "no tag", "a")


async def test_of_many_who_move_it_at_once_each_says_truly_from_where(server: MemoryServer) -> None:
    async def moves(number: int) -> tuple[str, str]:
        mine = await registry(server, f"n{number}")
        to = f"{number:064x}"
        (moved,) = await tag_version(mine, thing("x", to), ["v"], mine.node)
        return moved["before"], to

    steps = dict(await asyncio.gather(*(moves(number) for number in range(1, 9))))
    assert len(steps) == 8, "each came from another place"
    at, seen = "", 0
    while at in steps:
        at, seen = steps[at], seen + 1
    assert seen == 8
    found = await find_tag(await registry(server, "last"), "x", "v")
    assert found is not None
    assert found.manifest == at


class Moving(MemoryStore):
    """A store in which somebody else writes a tag whenever it was read."""

    async def get(self, key: str) -> KeyValue | None:
        found = await super().get(key)
        if key.startswith(records.TAGS):
            value = found.value if found else records.encode(TagRecord("v", "o", 1.0, **SHOWN))
            await self.commit([Put(key, value)])
        return found


SHOWN = {name: value for name, value in vars(ONE).items() if name != "supersedes"}


async def test_who_never_wins_says_so(server: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "PAUSE", 0.0)
    mine = await registry(server, "a", Moving(server))
    for work in (move_tag(mine, TWO, "v", "a"), remove_tag(mine, "x", "v")):
        with pytest.raises(MetadataUnavailable, match="others were faster"):
            await work


async def test_it_is_removed_once(a: Registry, b: Registry) -> None:
    await move_tag(a, ONE, "v1", "a")
    assert (await remove_tag(b, "x", "v1")).manifest == ONE.manifest
    with pytest.raises(TagNotFound):
        await remove_tag(a, "x", "v1")
    assert (await a.store.scan(records.TAGS)).items == ()


async def test_a_stale_tag_still_leads_to_its_version(a: Registry, b: Registry) -> None:
    await a.publish(ONE)
    await move_tag(a, ONE, "v1", "a")
    assert await stale_tags(a, "x", ONE.manifest) == []
    assert [(t["complete"], t["partial"]) for t in await describe_tags(a, await tags_of(a, "x"))] == [(1, 0)]
    await a.withdraw(ONE.manifest, ["x"])
    assert await a.find("x") is None
    assert await stale_tags(b, "x", ONE.manifest) == ["v1"]
    assert [(t["complete"], t["partial"]) for t in await describe_tags(b, await tags_of(b, "x"))] == [(0, 0)]
    for text in ("x:v1", "x@1111", f"x:v1@{ONE.manifest}"):
        assert await look_up(b, parse_reference(text)) == ONE
    assert isinstance(await unknown(b, parse_reference("x:other")), TagNotFound), "the object is known by its tag"


async def test_history_keeps_what_has_a_tag(a: Registry) -> None:
    await a.publish(ONE)
    await move_tag(a, ONE, "v1", "a")
    await a.publish(TWO, force=True)
    await a.withdraw(ONE.manifest, ["x"])
    await forget_versions(a, "x")
    assert [record.manifest for record in await earlier_versions(a, "x")] == [ONE.manifest]
    await remove_tag(a, "x", "v1")
    await forget_versions(a, "x")
    assert await earlier_versions(a, "x") == []


async def test_pages_and_names_that_begin_alike(a: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "PAGE", 2)
    for number in range(5):
        await move_tag(a, ONE, f"t{number}", "a")
    for name in ("x/y", "x-1"):
        await move_tag(a, thing(name, "3" * 64), "t", "a")
    assert [t.tag for t in await tags_of(a, "x")] == ["t0", "t1", "t2", "t3", "t4"]
    assert [t.tag for t in await tags_of(a, "x/y")] == ["t"]


async def test_what_is_no_record_of_ours_is_no_tag(a: Registry) -> None:
    await move_tag(a, ONE, "v1", "a")
    good = await a.store.get(records.tag_key("x", "v1"))
    assert good is not None
    for value in (b"", b"{}", records.encode(ONE), good.value):
        await a.store.commit([Put(records.tag_key("x", "v2"), value)])
        assert await find_tag(a, "x", "v2") is None
        assert [t.tag for t in await tags_of(a, "x")] == ["v1"]
        await a.store.commit([Delete(records.tag_key("x", "v2"))])
