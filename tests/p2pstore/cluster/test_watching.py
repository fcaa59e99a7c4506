"""A watch tells of each version once, whatever becomes of the metadata server meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from p2pstore.cluster import records, watching
from p2pstore.cluster.records import TagRecord
from p2pstore.cluster.registry import Registry
from p2pstore.cluster.tags import move_tag
from p2pstore.cluster.watching import Versions, watch
from p2pstore.errors import MetadataUnavailable, UsageError
from p2pstore.metadata.memory import MemoryServer
from p2pstore.metadata.store import Changed, KeyValue, Removed, Snapshot
from p2pstore.objects.reference import Reference, parse_reference
from tests.p2pstore.cluster.registries import a, b, server, thing

__all__ = ["a", "b", "server"]

WAIT = 60.0
ONE, TWO, THREE = (thing("x", digit * 64, created=float(digit)) for digit in "123")


def item(value: bytes, key: str = records.object_key("x")) -> KeyValue:
    return KeyValue(key, value, 1, 1, 1)


def test_what_is_new() -> None:
    versions = Versions(Reference("x"))
    one, two = (item(records.encode(each)) for each in (ONE, TWO))
    assert versions.new_in(Snapshot((), 1)) is None
    assert versions.new_in(Changed(one)) == ONE
    assert versions.new_in(Changed(one)) is None, "it is no other"
    assert versions.new_in(Removed(one.key, 2)) is None
    assert versions.new_in(Changed(one)) is None, "it came back"
    assert versions.new_in(Snapshot((item(b"other", one.key + "/y"), two), 3)) == TWO, "seen when the server was back"
    for foreign in (item(b""), item(b"[]"), item(records.encode(THREE), one.key + "/y")):
        assert versions.new_in(Changed(foreign)) is None
    assert versions.seen == TWO.manifest


def test_a_tag_is_watched_too_and_a_digest_is_not() -> None:
    versions = Versions(parse_reference("x:v"))
    shown = {name: value for name, value in vars(ONE).items() if name != "supersedes"}
    tag = item(records.encode(TagRecord("v", "a", 1.0, **shown)), records.tag_key("x", "v"))
    assert versions.new_in(Changed(item(records.encode(TWO)))) is None
    assert versions.new_in(Changed(tag)) == ONE
    with pytest.raises(UsageError, match="one version for ever"):
        Versions(parse_reference("x@12"))


class Told:
    """What is told, as it comes."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._more = asyncio.Event()

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        self._more.set()

    async def until(self, there: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async def look() -> dict[str, Any]:
            while True:
                for event in self.events:
                    if there(event):
                        return event
                self._more.clear()
                await self._more.wait()

        return await asyncio.wait_for(look(), WAIT)

    @property
    def versions(self) -> list[str]:
        return [event["manifest"][0] for event in self.events if event["event"] == "version"]


@asynccontextmanager
async def watched(of: Registry, text: str, membership: Any = None, *, initial: bool = False) -> AsyncIterator[Told]:
    told = Told()
    member = membership or SimpleNamespace(ok=True, fault=None)
    task = asyncio.create_task(watch(of.store, member, parse_reference(text), told, initial=initial))
    try:
        yield told
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def watching_began(event: dict[str, Any]) -> bool:
    return bool(event["event"] == "note" and "watching" in event["text"])


async def test_each_new_version_is_told_once(a: Registry, b: Registry) -> None:
    await a.publish(ONE)
    async with watched(b, "x") as told:
        await told.until(watching_began)
        await a.publish(thing("x/y", "9" * 64))
        await a.publish(ONE)
        await a.publish(TWO, force=True)
        event = await told.until(lambda e: e.get("manifest") == TWO.manifest)
        assert (event["reference"], event["previous"]) == (f"x@sha256:{TWO.manifest}", ONE.manifest)
        assert (event["size"], event["files"], event["creator"], event["tag"]) == (10, 1, "a", "")
        await a.publish(THREE, force=True)
        await told.until(lambda e: e.get("manifest") == THREE.manifest)
        assert told.versions == ["2", "3"]


async def test_of_what_is_not_there_yet_the_first_is_new(a: Registry, b: Registry) -> None:
    async with watched(b, "x", initial=True) as told:
        await told.until(watching_began)
        await a.publish(ONE)
        assert (await told.until(lambda e: e["event"] == "version"))["previous"] == ""


async def test_it_may_begin_with_what_there_is(a: Registry, b: Registry) -> None:
    await a.publish(ONE)
    async with watched(b, "x", initial=True) as told:
        assert (await told.until(lambda e: e["event"] == "version"))["manifest"] == ONE.manifest


async def test_a_tag_that_moves(a: Registry, b: Registry) -> None:
    await move_tag(a, ONE, "v", "a")
    async with watched(b, "x:v") as told:
        await told.until(watching_began)
        await move_tag(a, THREE, "v", "a")
        event = await told.until(lambda e: e["event"] == "version")
        assert (event["manifest"], event["previous"], event["tag"]) == (THREE.manifest, ONE.manifest, "v")


async def test_a_lost_metadata_server_is_told_and_that_it_is_back(
    a: Registry, b: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.01)
    member = SimpleNamespace(ok=True, fault=None)
    async with watched(b, "x", member) as told:
        await told.until(watching_began)
        member.fault = MetadataUnavailable(url="etcd://x", detail="connection refused")
        member.ok = False
        await told.until(lambda e: "connection refused; still watching" in e.get("text", ""))
        member.ok = True
        await told.until(lambda e: "answers again" in e.get("text", ""))
        await a.publish(ONE)
        await told.until(lambda e: e["event"] == "version")
        assert len(told.events) == 4


async def test_a_digest_is_refused_at_once(server: MemoryServer, a: Registry) -> None:
    with pytest.raises(UsageError):
        await watch(a.store, SimpleNamespace(ok=True), parse_reference("x@12"), Told(), initial=False)  # type: ignore[arg-type]
    assert server.revision >= 1
