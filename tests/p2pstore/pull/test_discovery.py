"""Sources come and go with the records of holders, and with those that the user named."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import pytest

from p2pstore.cluster.records import NodeRecord
from p2pstore.cluster.registry import Registry
from p2pstore.pull import discovery as module
from p2pstore.pull import holders, listing
from p2pstore.swarm.gateway import SAME_ZONE, Claim, Rank
from tests.p2pstore.pull.discovering import ALL, MANIFEST, ME, WAIT, World, eventually, world

__all__ = ["world"]


async def test_holders_before_and_after(world: World) -> None:
    await world.holder("a")
    found = await world.discover()
    await world.log.until(lambda: world.log.sources == {"a": ALL})
    await world.holder("b")
    await world.log.until(lambda: world.log.sources == {"a": ALL, "b": ALL})
    assert found.candidates == 2
    assert found.looked


async def test_a_holder_whose_lease_ends_is_taken_out(world: World) -> None:
    await world.holder("a")
    await world.discover()
    await world.log.until(lambda: "a" in world.log.sources)
    await world.leases["a"].store.revoke(world.leases["a"].lease)
    await world.log.until(lambda: world.log.sources == {})
    await world.announce((await world.holder("a")).record)
    await world.log.until(lambda: world.log.sources == {"a": ALL})


async def test_this_node_is_no_source_of_its_own(world: World) -> None:
    await world.announce(ME)
    await world.holder("a")
    await world.discover()
    await world.log.until(lambda: "a" in world.log.sources)
    assert set(world.log.sources) == {"a"}


async def test_peers_that_the_user_named(world: World) -> None:
    owner = await world.holder("a")
    await world.discover(peers=["127.0.0.1:1", "nonsense", owner.record.control], watched=False)
    await world.log.until(lambda: world.log.sources == {"a": ALL})


async def test_newcomers_take_the_places_of_some_that_came_before_and_never_of_those_that_have_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All followed the first to come, and nobody the last: half of 32 links carried nothing."""
    for each in (module, listing, holders):
        monkeypatch.setattr(each, "MAX_SOURCES", 3)
    asked: list[tuple[int, int]] = []

    def always(known: int, most: int, _: object) -> bool:
        asked.append((known, most))
        return True

    monkeypatch.setattr(module, "displaces", always)
    await world.holder("whole")
    for name in "ab":
        await world.holder(name, state="partial")
    found = await world.discover()
    await world.log.until(lambda: set(world.log.sources) == {"whole", "a", "b"})
    assert asked == []
    for number, name in enumerate("cde"):
        await world.holder(name, state="partial")
        await world.log.until(lambda name=name: name in world.log.sources and len(world.log.sources) == 3)  # type: ignore[misc]
        assert "whole" in world.log.sources
        assert asked[-1] == (4 + number, 3)
    assert len(asked) == 3, "whoever lost its place asks for no other's"
    assert {each.key for each in found._placed} == set(world.log.sources)


async def test_a_newcomer_does_not_take_the_place_of_a_gateway(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gives its zone's gateway up takes it for gone, and begins an election, though the gateway is there."""
    for each in (module, listing, holders):
        monkeypatch.setattr(each, "MAX_SOURCES", 2)
    monkeypatch.setattr(module, "displaces", lambda *_: True)
    monkeypatch.setattr(module, "distance", lambda *_: SAME_ZONE)
    owner = await world.holder("a", state="partial")
    await world.holder("b", state="partial")
    found = await world.discover()
    await world.log.until(lambda: set(world.log.sources) == {"a", "b"})
    claim = Claim(0, 1, Rank.CANDIDATE, 5, own=True)
    owner.holdings.replicas[MANIFEST.digest].claims(claim)
    await world.log.until(lambda: world.log.claimed == [("a", claim)])
    for name in "cde":
        await world.holder(name, state="partial")
        await world.log.until(lambda name=name: name in world.log.sources and len(world.log.sources) == 2)  # type: ignore[misc]
        assert "a" in world.log.sources
    owner.holdings.replicas[MANIFEST.digest].claims(Claim(0, 2, Rank.CANDIDATE, 4))
    await world.log.until(lambda: len(world.log.claimed) == 2)
    assert not found._followed["a"].leads, "another is the gateway now"


async def test_it_can_be_ended_at_any_turn_of_the_loop(world: World) -> None:
    """A cancel that came as a connection was made was forgotten, and the end of a get waited for its source's end."""
    await world.holder("a")
    turns = 0
    while world.log.sources != {"a": ALL} and turns < 500:
        turns += 1
        world.log.sources.clear()
        await world.discover()
        for _ in range(turns):
            await asyncio.sleep(0)
        world.task.cancel()
        done, _ = await asyncio.wait({world.task}, timeout=WAIT)
        assert done, f"cancelled after {turns} turns, it went on"


async def test_a_newcomer_that_takes_no_place_waits_for_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (module, listing, holders):
        monkeypatch.setattr(each, "MAX_SOURCES", 1)
    monkeypatch.setattr(module, "displaces", lambda *_: False)
    await world.holder("a", state="partial")
    await world.discover()
    await world.log.until(lambda: set(world.log.sources) == {"a"})
    await world.holder("b", state="partial")
    await world.leases["a"].store.revoke(world.leases["a"].lease)
    await world.log.until(lambda: set(world.log.sources) == {"b"})


async def test_a_newcomer_that_cannot_be_followed_takes_nobodys_place(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in (module, listing, holders):
        monkeypatch.setattr(each, "MAX_SOURCES", 1)
    looked = asyncio.Event()

    def always(*_: object) -> bool:
        looked.set()
        return True

    monkeypatch.setattr(module, "displaces", always)
    await world.holder("a", state="partial")
    found = await world.discover()
    await world.log.until(lambda: set(world.log.sources) == {"a"})
    kicked = found._followed["a"].kicked
    world.transports = ()
    await world.holder("far away", state="partial")
    await asyncio.wait_for(looked.wait(), WAIT)
    await eventually(lambda: len(found._places._others) == 1 or kicked.is_set())
    assert not kicked.is_set()


async def test_a_newcomer_does_not_take_the_place_of_one_that_the_user_named_and_that_is_listed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in (module, listing, holders):
        monkeypatch.setattr(each, "MAX_SOURCES", 2)
    monkeypatch.setattr(module, "displaces", lambda *_: True)
    owner = await world.holder("a", state="partial")
    control = owner.record.control
    asked, node = asyncio.Event(), world.client.node

    async def later(at: str) -> NodeRecord:
        await asked.wait()
        return await node(at)

    world.client.node = later  # type: ignore[method-assign]
    found = await world.discover(peers=[control])
    await world.log.until(lambda: set(world.log.sources) == {"a"})
    assert found._followed["a"].key == "a", "it is read as one that is listed"
    asked.set()
    await eventually(lambda: not found._places.full)
    await world.holder("b", state="partial")
    await world.log.until(lambda: set(world.log.sources) == {"a", "b"})
    for name in "cd":
        await world.holder(name, state="partial")
        await world.log.until(lambda name=name: name in world.log.sources and len(world.log.sources) == 2)  # type: ignore[misc]
        assert "a" in world.log.sources


async def test_a_feed_whose_end_came_together_with_an_answer_ends(world: World) -> None:
    """A cancel that is lost by who answers: the feed read on, and whoever ended it waited in vain."""
    owner = await world.holder("a")
    asked, node = asyncio.Event(), world.client.node

    async def answered(at: str) -> NodeRecord:
        asked.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return await node(at)

    world.client.node = answered  # type: ignore[method-assign]
    found = await world.discover(peers=[owner.record.control], watched=False)
    await asyncio.wait_for(asked.wait(), WAIT)
    feeds = list(found._feeds.values())
    world.task.cancel()
    await asyncio.wait({world.task}, timeout=WAIT)
    over = world.task.done()
    for feed in feeds:
        feed.cancel()
    assert over


async def test_a_withdrawn_replica_is_taken_out(world: World) -> None:
    owner = await world.holder("a")
    await world.discover()
    await world.log.until(lambda: "a" in world.log.sources)
    await owner.holdings.remove(owner.holdings.named("n")[0])
    await world.log.until(lambda: world.log.sources == {})


async def test_a_source_that_was_dropped_is_read_anew_a_banned_one_never(world: World) -> None:
    await world.holder("a")
    await world.holder("b")
    found = await world.discover()
    await world.log.until(lambda: set(world.log.sources) == {"a", "b"})
    found.dropped("a", banned=False)
    found.dropped("b", banned=True)
    await world.log.until(lambda: world.log.times_added["a"] == 2 and "b" not in world.log.sources)
    assert found.candidates == 1
    await world.announce(NodeRecord("c", *(await control_of(world, "b"))))
    await world.holder("d")
    await world.log.until(lambda: "d" in world.log.sources)
    assert world.log.times_added["b"] == 1


async def test_a_holder_that_no_transport_reaches_is_no_candidate(world: World) -> None:
    """D12: it counted as one, so that ``--transport local`` waited ten seconds for it, and not three."""
    world.transports = ()
    await world.holder("a")
    found = await world.discover()
    await eventually(lambda: bool(found._feeds) and not found.candidates)
    assert world.log.sources == {}
    world.transports = ("tcp",)
    await world.log.until(lambda: world.log.sources == {"a": ALL})
    assert found.candidates == 1


async def test_a_holder_that_is_listed_and_named_by_the_user_is_followed_once(world: World) -> None:
    """D13: two feeds followed it, so that it took the getter for two, and the one that ended took the source away."""
    owner = await world.holder("a")
    control = owner.record.control
    streams = most = known = 0  # of the streams at the holder, how many there were at once, and records of it
    converse, node, nodes = world.client.converse, world.client.node, Registry.nodes

    async def counted(at: str, *args: Any, **options: Any) -> bool:
        nonlocal streams, most
        streams += at == control
        most = max(most, streams)
        try:
            return await converse(at, *args, **options)
        finally:
            streams -= at == control

    async def asked(at: str) -> NodeRecord:
        nonlocal known
        record = await node(at)
        known += 1
        return record

    async def listed(self: Registry, names: Sequence[str]) -> dict[str, NodeRecord]:
        nonlocal known
        found = await nodes(self, names)
        known += "a" in names
        return found

    world.client.converse = counted  # type: ignore[method-assign]
    world.client.node = asked  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "nodes", listed)
        found = await world.discover(peers=[control])
        await eventually(lambda: known >= 2 and streams > 0)
    await world.holder("b")
    await world.log.until(lambda: world.log.sources == {"a": ALL, "b": ALL})
    assert world.log.shares["a"] is False, "it is the only getter"
    assert most == 1

    lease = world.leases["a"]
    await lease.store.revoke(lease.lease)
    await eventually(lambda: "a" not in found._feeds)
    # Its feed as a listed one may have been the one that read, and takes the source away once more when it ends.
    await eventually(lambda: "a" in found._followed and found._followed["a"].key == control)
    await world.log.until(lambda: "a" in world.log.sources)
    assert world.log.sources["a"] == ALL, "it is not listed any more, and the user still wants it"
    await owner.holdings.remove(owner.holdings.named("n")[0])
    await world.log.until(lambda: "a" not in world.log.sources)


async def control_of(world: World, node: str) -> tuple[str, str, int]:
    record = (await world.leases[node].nodes([node]))[node]
    return record.control, record.segment, record.data_port


@pytest.mark.parametrize(
    "record",
    [
        NodeRecord("x", "not an address", "127.0.0.1:1", 1),
        NodeRecord("x", "127.0.0.1:1", "127.0.0.1:1", 1),
        NodeRecord("x", "127.0.0.1:1", "nonsense", 0),
        NodeRecord("x", "", "", 1),
    ],
    ids=range(4),
)
async def test_a_bad_record_is_no_ones_but_its_own_trouble(world: World, record: NodeRecord) -> None:
    await world.announce(record)
    found = await world.discover()
    await world.holder("a")
    await world.log.until(lambda: world.log.sources == {"a": ALL})
    assert found.candidates == 2
    assert not any(feed.done() for feed in found._feeds.values()), "it is tried again"
