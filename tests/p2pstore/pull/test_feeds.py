"""A feed follows what a holder says, is begun anew when that breaks off, and hears why when it is given up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.errors import RangeRefused
from engine.net.backoff import Backoff
from p2pstore.cluster.records import ReplicaRecord
from p2pstore.errors import PeerUnreachable
from p2pstore.pull import discovery as module
from p2pstore.pull import holders, speaker
from p2pstore.swarm import audience as audience_module
from p2pstore.swarm.events import Declined, Opened
from p2pstore.swarm.gateway import Claim, Rank
from tests.p2pstore.pull.discovering import ALL, MANIFEST, WAIT, World, eventually, world

__all__ = ["world"]


async def answers_as_before(*_: Any, **__: Any) -> bool:
    """``PeerClient.converse`` with a peer of an earlier version, which changes to no lines."""
    return False


@pytest.mark.parametrize("lines", [True, False])
async def test_grants_of_a_source_and_what_is_said_to_them(
    world: World, monkeypatch: pytest.MonkeyPatch, *, lines: bool
) -> None:
    if not lines:
        monkeypatch.setattr(world.client, "converse", answers_as_before)
    owner = await world.holder("a")
    found = await world.discover()
    await world.log.until(lambda: "a" in world.log.sources)
    assert world.log.shares == {"a": False}
    other = world.client.availability(owner.record.control, MANIFEST)
    await other.__anext__()
    await world.log.until(lambda: world.log.shares == {"a": True})
    await world.log.until(lambda: len(world.log.grants) == 1)
    assert world.log.grants[0].key == "a"
    found.speaker.say(Declined("a", world.log.grants[0].number, 3, full=True))
    found.speaker.say(Opened("nobody", 0))
    found.speaker.say(Opened("a", 2))
    await world.log.until(lambda: len(world.log.grants) == 2)
    assert world.log.grants[1].number != world.log.grants[0].number
    await other.aclose()  # type: ignore[attr-defined]


async def test_who_a_source_takes_for_the_gateway(world: World) -> None:
    owner = await world.holder("a")
    await world.discover()
    await world.log.until(lambda: "a" in world.log.sources)
    claim = Claim(0, 1, Rank.CANDIDATE, 5)
    owner.holdings.replicas[MANIFEST.digest].claims(claim)
    await world.log.until(lambda: world.log.claimed == [("a", claim)])


async def test_a_source_that_does_not_hear_us_is_begun_anew_without_grants(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    availability = world.client.availability

    def noted(*args: Any, grants: bool, **options: Any) -> Any:
        asked.append(grants)
        return availability(*args, grants=grants, **options)

    async def unheard(*_: object) -> None:
        raise PeerUnreachable(peer="a", detail="it hung up")

    monkeypatch.setattr(world.client, "converse", answers_as_before)
    monkeypatch.setattr(world.client, "say", unheard)
    monkeypatch.setattr(world.client, "availability", noted)
    await world.holder("a")
    await world.discover()
    await world.log.until(lambda: world.log.times_added.get("a", 0) == 2)
    assert asked == world.log.granting == [True, False]


async def test_a_source_that_grants_and_never_hears_is_begun_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to be said to it does not pile up."""

    async def deaf(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(world.client, "converse", answers_as_before)
    monkeypatch.setattr(world.client, "say", deaf)
    monkeypatch.setattr(speaker, "MAX_UNSAID", 2)
    await world.holder("a")
    found = await world.discover()
    await world.log.until(lambda: world.log.times_added.get("a", 0) == 1)
    for number in range(3):
        found.speaker.say(Opened("a", number))
    await world.log.until(lambda: world.log.times_added.get("a", 0) == 2)


async def test_a_crowded_holder_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audience_module, "MAX_LISTENERS", 1)
    owner = await world.holder("a")
    other = world.client.availability(owner.record.control, MANIFEST)
    await other.__anext__()
    found = await world.discover()

    async def waits() -> None:
        while not found.waiting:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)

    await asyncio.wait_for(waits(), WAIT)
    assert world.log.sources == {}
    await other.aclose()  # type: ignore[attr-defined]
    await world.log.until(lambda: world.log.sources == {"a": ALL})
    assert not found.waiting


async def test_who_refused_a_range_is_still_heard_saying_why(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the refusal was there first, and then nobody listened any more."""
    monkeypatch.setattr(module, "WHY_SECONDS", WAIT)
    owner = await world.holder("a")
    found = await world.discover()
    await world.log.until(lambda: "a" in world.log.sources)
    world.log.faults["a"] = RangeRefused(peer="a", length=1, address=0)
    found.dropped("a", banned=False)
    await asyncio.sleep(0.01)
    await owner.holdings.give_up(owner.holdings.named("n")[0], "it was cut short")
    await world.log.until(lambda: "it was cut short" in str(found.withdrew.get("a")))


async def test_who_is_listed_no_more_is_still_heard_saying_why(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata store told of it first, and then nobody listened any more."""
    monkeypatch.setattr(module, "WHY_SECONDS", 10 * WAIT)
    owner = await world.holder("a")
    found = await world.discover()
    await world.log.until(lambda: "a" in world.log.sources)
    await world.leases["a"].withdraw(MANIFEST.digest, ())
    await eventually(lambda: "a" in found._unlisted)
    assert found.candidates == 1
    await owner.holdings.give_up(owner.holdings.named("n")[0], "it was cut short")
    await world.log.until(lambda: world.log.sources == {})
    await eventually(lambda: not found.candidates)
    assert "it was cut short" in str(found.withdrew["a"])


async def test_who_is_listed_no_more_and_says_nothing_is_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WHY_SECONDS", 10 * WAIT)
    await world.holder("a")
    found = await world.discover()
    await world.log.until(lambda: "a" in world.log.sources)
    await world.leases["a"].withdraw(MANIFEST.digest, ())
    await eventually(lambda: "a" in found._unlisted)
    await world.leases["a"].announce(MANIFEST.digest, ReplicaRecord("a", "complete", "gold"))
    await eventually(lambda: "a" not in found._unlisted)
    assert found.candidates == 1, "it is listed again"
    monkeypatch.setattr(module, "WHY_SECONDS", 0.01)
    await world.leases["a"].withdraw(MANIFEST.digest, ())
    await eventually(lambda: not found.candidates)
    await world.log.until(lambda: world.log.sources == {})


async def test_what_one_refused_keeps_no_other_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WHY_SECONDS", 10 * WAIT)
    for name in ("a", "b"):
        await world.holder(name)
    found = await world.discover()
    await world.log.until(lambda: set(world.log.sources) == {"a", "b"})
    world.log.faults["a"] = RangeRefused(peer="a", length=1, address=0)
    found.dropped("b", banned=False)
    await world.log.until(lambda: world.log.times_added["b"] == 2)


async def test_an_error_that_nobody_foresaw_does_not_end_a_feed(world: World) -> None:
    """Nor is it told as the reason of anything once the holder has answered."""
    await world.holder("a")
    converse = world.client.converse
    fails = True

    async def fails_at_first(*args: Any, **options: Any) -> bool:
        if fails:
            raise ValueError("unforeseen")
        return await converse(*args, **options)

    world.client.converse = fails_at_first  # type: ignore[method-assign]
    found = await world.discover()
    await eventually(lambda: "unforeseen" in str(found.last_fault))
    fails = False
    await world.log.until(lambda: world.log.sources == {"a": ALL})
    assert found.last_fault is None


async def test_a_feed_waits_for_a_pull_that_is_behind(world: World) -> None:
    world.log.behind = True
    await world.holder("a")
    found = await world.discover()
    await eventually(lambda: "a" in found._followed)
    assert world.log.sources == {}
    world.log.behind = False
    await world.log.until(lambda: world.log.sources == {"a": ALL})


async def test_a_feed_whose_holder_was_given_up_waits_longer_each_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Noted(Backoff):
        def after(self, failures: int) -> float:
            asked.append(failures)
            return 0.01

    monkeypatch.setattr(holders, "PUT_OFF", Noted(1.0, 2.0))
    await world.holder("a")
    found = await world.discover()
    for times in (1, 2, 3):
        await world.log.until(lambda times=times: world.log.times_added.get("a") == times)  # type: ignore[misc]
        if times == 3:
            world.log.bytes_by_node["a"] = 7
        found.dropped("a", banned=False)
    await world.log.until(lambda: world.log.times_added["a"] == 4)
    assert asked == [1, 2, 1]


async def test_what_a_source_says_to_a_complaint_is_told(world: World) -> None:
    notes: list[str] = []
    owner = await world.holder("a")
    found = await world.discover(note=notes.append)
    await world.log.until(lambda: "a" in world.log.sources)
    found.complaints.complain("a", 0)
    found.dropped("a", banned=True)  # at once, as a pull does it
    found.complaints.complain("nobody", 0)
    await asyncio.sleep(0)
    await found.complaints.heard(WAIT)
    assert len(notes) == 1
    assert "a has read its chunk 0 again: it is right there" in notes[0]
    assert owner.holdings.of(MANIFEST.digest)


async def test_a_holder_that_serves_others_first_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pstore.peers.peer_server.HEARTBEAT_SECONDS", 0.01)
    owner = await world.holder("a")
    found = await world.discover()
    await world.log.until(lambda: "a" in world.log.sources)
    assert not found.queued
    monkeypatch.setattr(owner.engine, "waiting", lambda _: 1)

    async def queued(expected: bool) -> None:
        while found.queued is not expected:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)

    await asyncio.wait_for(queued(True), WAIT)
    monkeypatch.setattr(owner.engine, "waiting", lambda _: 0)
    monkeypatch.setattr(module, "QUEUED_SECONDS", 0.05)
    await asyncio.wait_for(queued(False), WAIT)
