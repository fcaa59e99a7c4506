"""Sources come and go with the records of holders, and feeds follow what each holder says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from engine.errors import MooncakeError, RangeRefused
from engine.net.backoff import Backoff
from p2pstore.cluster import manifests
from p2pstore.cluster.manifests import first_that_answers
from p2pstore.cluster.peer_client import PeerClient
from p2pstore.cluster.records import NodeRecord, ReplicaRecord, distance, peer_address
from p2pstore.cluster.registry import Registry
from p2pstore.errors import BadManifest, PeerHasNot, PeerUnreachable, RemoteProtocolError, SecretRefused
from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.objects.bitmap import Bitmap
from p2pstore.pull import discovery as module
from p2pstore.pull import holders, speaker
from p2pstore.pull.discovery import Discovery
from p2pstore.pull.workers import Source
from p2pstore.swarm import audience as audience_module
from p2pstore.swarm.events import Declined, Opened
from p2pstore.swarm.gateway import ABROAD, ELSEWHERE, SAME_HOST, SAME_ZONE, Claim, Rank
from p2pstore.swarm.granter import Grant
from tests.p2pstore.cluster.hostile_peer import answer, hostile
from tests.p2pstore.peers.owner import Owner, serving
from tests.p2pstore.samples import MIB, content, manifest_of

DATA = content(3 * MIB)
MANIFEST = manifest_of({"": DATA}, MIB)
ME = NodeRecord("me", "127.0.0.1:1", "127.0.0.1:2", 3)
WAIT = 30.0


def test_peer_address() -> None:
    record = NodeRecord("n", "c", "[::1]:77", 78, host_id="h", local_socket="/s")
    found = peer_address(record)
    assert (found.segment, found.host, found.data_port, found.host_id) == ("[::1]:77", "::1", 78, "h")


@pytest.mark.parametrize(
    ("segment", "port"),
    [
        *[("", 1), ("host", 1), (":7", 1), ("h:x", 1), ("h:", 1), ("h:7", 0), ("h:7", 65536)],
        *[("h:\u00b2", 1), ("h:70000", 1), ("a b:7", 1), ("h:" + "1" * 5000, 1)],
    ],
)
def test_records_without_a_usable_address(segment: str, port: int) -> None:
    with pytest.raises(RemoteProtocolError):
        peer_address(NodeRecord("n", "c", segment, port))


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        (("h", "z"), ("h", "z"), SAME_HOST),
        (("h", "z"), ("i", "z"), SAME_ZONE),
        (("h", "z"), ("i", "y"), ABROAD),
        (("h", "z"), ("i", ""), ELSEWHERE),
        (("", ""), ("", ""), ELSEWHERE),
        (("", "z"), ("", "z"), SAME_ZONE),
    ],
)
def test_distance(mine: tuple[str, str], theirs: tuple[str, str], expected: int) -> None:
    one, other = (NodeRecord("n", "", "", 1, host_id=h, zone=z) for h, z in (mine, theirs))
    assert distance(one, other) == expected


class Log:
    """What a pull is told by discovery, as a set of sources and what each has."""

    behind = False

    def __init__(self) -> None:
        self.sources: dict[str, set[int]] = {}
        self.bytes_by_node: dict[str, int] = {}
        self.faults: dict[str, MooncakeError] = {}
        self.shares: dict[str, bool] = {}
        self.grants: list[Grant] = []
        self.claimed: list[tuple[str, Claim]] = []
        self.times_added: dict[str, int] = {}
        self.granting: list[bool] = []
        self.changed = asyncio.Event()

    def fault_of(self, node: str) -> MooncakeError | None:
        return self.faults.get(node)

    def add(self, source: Source, have: Bitmap, _: int, *, shared: bool, grants: bool) -> None:
        self.granting.append(grants)
        self.shares[source.node] = shared
        self.sources[source.node] = set(have)
        self.times_added[source.node] = self.times_added.get(source.node, 0) + 1
        self.changed.set()

    def has(self, node: str, chunks: Sequence[int]) -> None:
        self.sources[node].update(chunks)
        self.changed.set()

    def shared(self, node: str, shared: bool) -> None:
        self.shares[node] = shared
        self.changed.set()

    def granted(self, grant: Grant) -> None:
        self.grants.append(grant)
        self.changed.set()

    def claims(self, node: str, claim: Claim) -> None:
        self.claimed.append((node, claim))
        self.changed.set()

    def remove(self, node: str) -> None:
        self.sources.pop(node, None)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not condition():
                self.changed.clear()
                await self.changed.wait()

        await asyncio.wait_for(wait(), WAIT)


class World:
    """A metadata store, some holders with real peer servers, and one discovery."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.stack = stack
        self.server = MemoryServer()
        self.client = PeerClient(None)
        self.log = Log()
        self.leases: dict[str, Registry] = {}
        self.transports: tuple[str, ...] = ("tcp",)

    async def holder(self, name: str) -> Owner:
        """A node that holds the object, and says so."""
        owner, control = await self.stack.enter_async_context(serving())
        owner.record = NodeRecord(name, control, owner.engine.segment_name, owner.engine.data_port)
        await owner.hold("n", MANIFEST, DATA)
        await self.announce(owner.record)
        return owner

    async def announce(self, record: NodeRecord) -> None:
        registry = self.leases[record.node] = Registry(MemoryStore(self.server), record.node)
        registry.lease = await registry.store.grant(600)
        await registry.join(record)
        await registry.announce(MANIFEST.digest, ReplicaRecord(record.node, "complete", "gold"))

    async def discover(
        self, *, peers: Sequence[str] = (), watched: bool = True, note: Callable[[str], None] = lambda _: None
    ) -> Discovery:
        made = Discovery(
            self.log,  # type: ignore[arg-type]
            MANIFEST,
            ME,
            client=self.client,
            registry=Registry(MemoryStore(self.server), "me") if watched else None,
            peers=peers,
            transports=lambda _: self.transports,
            note=note,
        )
        task = asyncio.create_task(made.run())

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.stack.push_async_callback(end)
        return made


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(holders, "RETRIES", Backoff(0.01, 5.0))
    async with AsyncExitStack() as stack:
        made = World(stack)
        stack.push_async_callback(made.client.close)
        yield made


ALL = {0, 1, 2}


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


async def test_of_many_holders_a_whole_and_a_near_one_come_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (module, holders):
        monkeypatch.setattr(each, "MAX_SOURCES", 2)
    registry = Registry(MemoryStore(world.server), "me")
    registry.lease = await registry.store.grant(600)
    for n in range(20):
        registry.node = f"n{n:02}"
        await registry.join(NodeRecord(f"n{n:02}", "c:1", "c:1", 1, zone="z" if n == 7 else "y"))
    nodes = [f"n{n:02}" for n in range(20)]
    me = replace(ME, zone="z")
    found = Discovery(
        world.log,  # type: ignore[arg-type]
        MANIFEST,
        me,
        client=world.client,
        registry=registry,
        peers=[],
        transports=lambda _: ("tcp",),
    )
    orders = [await found._order(nodes, ["n03"], registry) for _ in range(5)]
    assert all(order[:2] == ["n03", "n07"] for order in orders)
    assert all(sorted(order) == nodes for order in orders)
    assert len({tuple(order) for order in orders}) > 1, "the others come at random"


async def test_a_withdrawn_replica_is_taken_out(world: World) -> None:
    owner = await world.holder("a")
    await world.discover()
    await world.log.until(lambda: "a" in world.log.sources)
    await owner.holdings.remove(owner.holdings.named("n")[0])
    await world.log.until(lambda: world.log.sources == {})


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


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what nothing tells of."""

    async def wait() -> None:
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), WAIT)


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


# The manifest


async def ask(client: PeerClient, *controls: str) -> tuple[Any, list[str]]:
    notes: list[str] = []
    try:
        return await first_that_answers(client, [(c, c) for c in controls], MANIFEST.digest, notes.append), notes
    except Exception as error:
        return error, notes


async def test_a_manifest_from_whoever_sends_a_good_one(world: World) -> None:
    owner = await world.holder("a")
    other = manifest_of({"": b"x"})
    async with (
        hostile(answer(other.to_bytes())) as liar,
        hostile(answer(b"", "403 Forbidden")) as refuser,
        hostile(b"\0") as garbage,
    ):
        found, notes = await ask(world.client, liar, refuser, garbage, "127.0.0.1:1", owner.record.control)
        assert found == MANIFEST
        assert len(notes) == 4
        assert isinstance((await ask(world.client, liar))[0], BadManifest)
        assert isinstance((await ask(world.client, refuser))[0], SecretRefused)
    assert isinstance((await ask(world.client))[0], PeerUnreachable)


async def test_a_silent_holder_is_not_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "HEDGE_SECONDS", 0.01)
    owner = await world.holder("a")
    async with hostile(b"", stay=True) as silent:
        found, _ = await asyncio.wait_for(ask(world.client, silent, owner.record.control), WAIT)
        assert found == MANIFEST


async def test_nobody_has_it(world: World) -> None:
    owner = await world.holder("a")
    await owner.holdings.remove(owner.holdings.named("n")[0])
    assert isinstance((await ask(world.client, owner.record.control))[0], PeerHasNot)


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
