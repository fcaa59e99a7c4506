"""Two nodes on one store: conflicts are found, nothing of another's is lost, nothing dead stays."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from p2pstore.cluster import records
from p2pstore.cluster.records import NodeRecord, ObjectRecord, ReplicaRecord
from p2pstore.cluster.registry import CAS_ATTEMPTS, GONE_SECONDS, Registry, new_object
from p2pstore.errors import HolderGone, MetadataFull, MetadataUnavailable, ObjectExists, ObjectNotFound
from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.metadata.store import Condition, Delete, KeyValue, LeaseLost, Operation, Put
from tests.p2pstore.cluster.registries import GOLD, PARTIAL, a, b, registry, server, thing
from tests.p2pstore.samples import manifest_of

__all__ = ["a", "b", "server"]


async def holders(registry: Registry, content: str) -> set[str]:
    return set(await registry.replicas(content))


async def test_publish_makes_object_and_replica(a: Registry, b: Registry) -> None:
    record = thing("x/y", "m1")
    assert await a.publish(record) == record
    assert await b.find("x/y") == record
    assert await b.replicas("m1") == {"a": ReplicaRecord("a", "complete", "gold")}


async def test_the_same_content_is_published_by_several(a: Registry, b: Registry) -> None:
    first = await a.publish(thing("x", "m1", "a"))
    assert await b.publish(thing("x", "m1", "b", 9.0)) == first
    assert await holders(a, "m1") == {"a", "b"}


async def test_other_content_is_refused_and_nothing_written(a: Registry, b: Registry) -> None:
    await a.publish(thing("x", "m1"))
    with pytest.raises(ObjectExists):
        await b.publish(thing("x", "m2"))
    assert await holders(b, "m2") == set()
    assert (await b.find("x")) == thing("x", "m1")


async def test_force_replaces(a: Registry, b: Registry) -> None:
    await a.publish(thing("x", "m1"))
    await b.publish(thing("x", "m2", "b"), force=True)
    assert await a.find("x") == replace(thing("x", "m2", "b"), supersedes="m1")
    assert await holders(a, "m1") == {"a"}


async def test_a_dead_object_is_replaced(a: Registry, b: Registry) -> None:
    await a.publish(thing("x", "m1"))
    await a.store.revoke(a.lease)
    assert await b.dead(thing("x", "m1"))
    await b.publish(thing("x", "m2", "b"))
    assert await b.find("x") == replace(thing("x", "m2", "b"), supersedes="m1")


async def test_what_is_no_record_is_replaced(a: Registry) -> None:
    await a.store.commit([Put(records.object_key("x"), b"garbage")])
    assert await a.find("x") is None
    await a.publish(thing("x", "m1"))
    assert await a.find("x") == thing("x", "m1")


@pytest.mark.parametrize("contents", [("m1", "m1"), ("m1", "m2")], ids=["same", "different"])
async def test_a_race_has_one_winner(server: MemoryServer, contents: tuple[str, str]) -> None:
    barrier = Rendezvous(server, 2)
    nodes = [await registry(server, f"n{i}", barrier) for i in range(2)]
    results = await asyncio.gather(
        *(n.publish(thing("x", c, n.node)) for n, c in zip(nodes, contents, strict=True)), return_exceptions=True
    )
    stands = await nodes[0].find("x")
    assert stands is not None
    if contents[0] == contents[1]:
        assert results == [stands, stands]
        assert await holders(nodes[0], "m1") == {"n0", "n1"}
    else:
        assert sorted(type(r).__name__ for r in results) == ["ObjectExists", "ObjectRecord"]
        assert [r for r in results if isinstance(r, ObjectRecord)] == [stands]
        loser = "m1" if stands.manifest == "m2" else "m2"
        assert await holders(nodes[0], loser) == set()


class Rendezvous(MemoryStore):
    """All of the first ``parties`` reads are answered before any of their writes is made: the worst of races."""

    def __init__(self, server: MemoryServer, parties: int) -> None:
        super().__init__(server)
        self._waiting = parties
        self._met = asyncio.Event()

    async def get(self, key: str) -> KeyValue | None:
        found = await super().get(key)
        self._waiting -= 1
        if self._waiting <= 0:
            self._met.set()
        await self._met.wait()
        return found


class Meddler(MemoryStore):
    """Does something just before a transaction of its registry, once."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self.before: list[Operation] = []
        self.always = False

    async def commit(self, operations: Sequence[Operation], conditions: Sequence[Condition] = ()) -> int | None:
        if self.before:
            await super().commit(self.before)
            if not self.always:
                self.before = []
        return await super().commit(operations, conditions)


async def test_a_holder_that_comes_back_keeps_its_name(server: MemoryServer, a: Registry) -> None:
    old = thing("x", "m1")
    await a.publish(old)
    await a.store.revoke(a.lease)
    a.lease = await a.store.grant(60)
    meddler = Meddler(server)
    b = await registry(server, "b", meddler)
    meddler.before = [Put(records.replica_key("m1", "a"), records.encode(GOLD), a.lease)]
    with pytest.raises(ObjectExists):
        await b.publish(thing("x", "m2", "b"))
    assert await a.find("x") == old


async def test_losing_every_race_is_said(server: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(seconds: float) -> None:
        pauses.append(seconds)

    pauses: list[float] = []
    monkeypatch.setattr(asyncio, "sleep", at_once)
    meddler = Meddler(server)
    loser = await registry(server, "l", meddler)
    meddler.before = [Put(records.object_key("x"), records.encode(thing("x", "m1")))]
    meddler.always = True
    with pytest.raises(MetadataUnavailable):
        await loser.publish(thing("x", "m2"), force=True)
    assert len(pauses) == CAS_ATTEMPTS


async def test_without_a_lease_nothing_is_written(a: Registry) -> None:
    a.lease = 0
    with pytest.raises(LeaseLost):
        await a.publish(thing("x", "m1"))
    with pytest.raises(LeaseLost):
        await a.announce("m1", PARTIAL)
    assert (await a.store.scan("")).items == ()


async def test_with_a_lost_lease_nothing_is_written(a: Registry) -> None:
    await a.store.revoke(a.lease)
    with pytest.raises(LeaseLost):
        await a.publish(thing("x", "m1"))
    assert (await a.store.scan("")).items == ()


async def test_announce_and_withdraw(a: Registry, b: Registry) -> None:
    await a.publish(thing("x", "m1"))
    await b.announce("m1", replace(PARTIAL, node="b"))
    assert (await a.replicas("m1"))["b"].state == "partial"
    assert await a.withdraw("m1", ["x"]) == []
    assert await a.find("x") is not None
    assert await b.withdraw("m1", ["x"]) == ["x"]
    assert (await a.store.scan("")).items == ()


async def test_withdraw_leaves_a_name_that_stands_for_other_content(a: Registry, b: Registry) -> None:
    await a.publish(thing("x", "m1"))
    await b.publish(thing("x", "m2", "b"), force=True)
    assert await a.withdraw("m1", ["x", "never there"]) == []
    assert await b.find("x") == replace(thing("x", "m2", "b"), supersedes="m1")


async def test_drop_name(a: Registry, b: Registry) -> None:
    await a.publish(thing("x", "m1"))
    await a.publish(thing("y", "m1"))
    assert await a.drop_name(thing("y", "m1"))
    assert await a.find("y") is None
    assert not await a.drop_name(thing("y", "m1"))
    await b.announce("m1", replace(PARTIAL, node="b"))
    assert not await a.drop_name(thing("x", "m1"))


async def test_drop_name_leaves_a_name_that_stands_for_other_content(a: Registry, b: Registry) -> None:
    await a.publish(thing("x", "m1"))
    await a.publish(thing("y", "m1"))
    await b.publish(thing("x", "m2", "b"), force=True)
    assert not await a.drop_name(thing("x", "m1"))
    assert await b.find("x") == replace(thing("x", "m2", "b"), supersedes="m1")


async def test_reap_is_guarded(a: Registry, b: Registry) -> None:
    record = thing("x", "m1")
    await a.publish(record)
    assert not await b.reap(record)
    await a.store.revoke(a.lease)
    assert not await b.reap(replace(record, created=2.0))
    assert await b.reap(record)
    assert await b.find("x") is None
    assert not await b.reap(record)


async def test_what_was_withdrawn_is_not_called_gone(a: Registry, b: Registry) -> None:
    await a.publish(thing("x", "m1"))
    await a.store.revoke(a.lease)
    assert await b.reap(thing("x", "m1"))
    await b.publish(thing("x", "m2", "b"))
    assert await b.withdraw("m2", ["x"]) == ["x"]
    assert isinstance(await b.missing("x"), ObjectNotFound)


@pytest.mark.parametrize(("alive", "kind"), [(True, ObjectNotFound), (False, HolderGone)])
async def test_a_getter_that_leaves_last_calls_gone_only_who_died(
    a: Registry, b: Registry, alive: bool, kind: type[Exception]
) -> None:
    await a.join(NodeRecord("a", "127.0.0.1:1", "127.0.0.1:2", 3))
    await a.publish(thing("x", "m1"))
    await b.announce("m1", replace(PARTIAL, node="b"))
    if alive:
        await a.withdraw("m1", ["x"])  # its file was changed
    else:
        await a.store.revoke(a.lease)
    assert await b.withdraw("m1", ["x"], died=True) == ["x"]
    assert isinstance(await b.missing("x"), kind)


async def test_who_looks_while_it_is_withdrawn_calls_nobody_gone(a: Registry, b: Registry) -> None:
    """Between the end of the replica and that of the name, on another node's listing."""
    await a.join(NodeRecord("a", "127.0.0.1:1", "127.0.0.1:2", 3))
    await a.publish(thing("x", "m1"))
    await a.store.commit([Delete(records.replica_key("m1", "a"))])
    assert await b.listing("", limit=10, after="") == ([], "")
    assert isinstance(await b.missing("x"), ObjectNotFound)
    assert await a.withdraw("m1", ["x"]) == []


async def test_many_that_are_gone_share_a_lease_that_ends(a: Registry, b: Registry) -> None:
    for number in range(5):
        await a.publish(thing(f"x{number}", f"m{number}"))
    await a.store.revoke(a.lease)
    assert await b.listing("", limit=10, after="") == ([], "")
    lease, _ = b._gone_lease
    assert await b.store.time_left(lease) > GONE_SECONDS / 2
    await b.store.revoke(lease)
    assert (await b.store.scan(records.GONE)).items == ()
    await b.publish(thing("late", "m9", "b"))
    await b.store.revoke(b.lease)
    assert not await b.reap(thing("late", "m9", "b")), "its own lease is gone, too"
    assert await b.reap(thing("late", "m9", "b"))


async def test_a_store_without_room_forgets_at_once(a: Registry, b: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    await a.publish(thing("x", "m1"))
    await a.store.revoke(a.lease)

    async def full(_: int) -> int:
        raise MetadataFull(url="etcd://x", detail="no space")

    monkeypatch.setattr(b.store, "grant", full)
    assert await b.reap(thing("x", "m1"))
    assert isinstance(await b.missing("x"), ObjectNotFound)


async def test_a_replica_that_comes_back_stops_the_reaper(server: MemoryServer, a: Registry) -> None:
    record = thing("x", "m1")
    await a.publish(record)
    await a.withdraw("m1", [])
    meddler = Meddler(server)
    b = await registry(server, "b", meddler)
    meddler.before = [Put(records.replica_key("m1", "a"), records.encode(GOLD), a.lease)]
    assert not await b.reap(record)
    assert await a.find("x") == record


async def test_republish_after_everything_was_lost(a: Registry) -> None:
    # Several names of one content, several places of one name, and more than one transaction takes.
    held = [(thing(f"many/{i}", f"m{i}"), GOLD) for i in range(300)]
    held += [(thing("twice", "mt"), GOLD), (thing("twice", "mt"), GOLD), (thing("again", "mt"), GOLD)]
    held += [(thing("versions", "new", created=5.0), GOLD), (thing("versions", "old", created=4.0), GOLD)]
    assert await a.republish(held) == []
    for record, _ in held[:300]:
        assert await a.find(record.name) == record
    assert await a.find("twice") == thing("twice", "mt")
    assert await a.find("again") == thing("again", "mt")
    assert await a.find("versions") == thing("versions", "new", created=5.0)
    assert await holders(a, "old") == await holders(a, "mt") == await holders(a, "m299") == {"a"}
    assert await a.republish(held) == []


async def test_republish_says_which_names_are_taken(a: Registry, b: Registry) -> None:
    mine = [(thing(f"n{i}", f"m{i}"), GOLD) for i in range(3)]
    await b.publish(thing("n1", "other", "b"))
    assert await a.republish(mine) == ["n1"]
    assert await a.find("n1") == thing("n1", "other", "b")
    assert await a.find("n2") == thing("n2", "m2")
    assert await holders(a, "m1") == {"a"}
    assert await a.republish([]) == []


async def test_republish_moves_to_the_new_lease(a: Registry) -> None:
    await a.publish(thing("x", "m1"))
    old, a.lease = a.lease, await a.store.grant(60)
    await a.republish([(thing("x", "m1"), GOLD)])
    await a.store.revoke(old)
    assert await holders(a, "m1") == {"a"}


async def test_the_listing_is_paged_and_reaps(a: Registry, b: Registry) -> None:
    for i in range(7):
        await a.publish(thing(f"p/{i}", f"m{i}"))
    await b.publish(thing("p/dead", "md", "b"))
    await b.publish(thing("other", "mo", "b"))
    await b.announce("m3", replace(PARTIAL, node="b"))
    await b.withdraw("md", [])
    await a.store.commit([Put(records.object_key("p/4x"), b"not ours")])

    seen: list[tuple[str, int, int]] = []
    after, pages = "", 0
    while True:
        page, after = await a.listing("p/", limit=2, after=after)
        seen += [(e.record.name, e.complete, e.partial) for e in page]
        pages += 1
        if not after:
            break
    assert seen == [(f"p/{i}", 1, 1 if i == 3 else 0) for i in range(7)]
    assert pages == 5
    assert await a.find("p/dead") is None
    assert [e.record.name for e in (await a.listing("", limit=0, after=""))[0]] == ["other", *(n for n, _, _ in seen)]
    assert await a.listing("nothing", limit=5, after="") == ([], "")


def test_a_new_record_has_a_time() -> None:
    manifest = manifest_of({"a": b"1", "b": b"23"})
    made = new_object("x", "me", manifest)
    assert made.created > 1_600_000_000
    assert (made.name, made.creator, made.manifest) == ("x", "me", manifest.digest)
    assert (made.size, made.files, made.chunks, made.kind) == (3, 2, 2, "directory")
