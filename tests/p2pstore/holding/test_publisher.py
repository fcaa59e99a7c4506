"""What the cluster is told of a node is what it holds and serves, wherever something fails or is cancelled."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import threading
import types
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from engine.net.backoff import Backoff
from engine.serving.segment_server import SegmentServer
from p2pstore.cluster import membership, records
from p2pstore.errors import (
    MetadataUnavailable,
    MooncakeError,
    NoLivePeer,
    StorageError,
)
from p2pstore.holding import looks, settling
from p2pstore.holding.catalog import Catalog, Holding
from p2pstore.holding.holdings import Holdings
from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.metadata.store import Condition, KeyValue, Operation, Page
from p2pstore.node import Node
from p2pstore.node_options import NodeOptions
from p2pstore.objects.manifest import Manifest
from p2pstore.pull.get import GetRequest
from p2pstore.pull.hope import Hope, Wait
from p2pstore.pull.run import PullWork
from p2pstore.swarm.planner import Planner
from tests.p2pstore.samples import MIB, content, read_tree, write_tree

T = TypeVar("T")

WAIT = 60.0
HASH = "xxh3_128"
OLD = {"": content(1000, 1)}
TREE = {"a": content(MIB + 5, 2), "b/c": content(10, 3)}
THEIRS = {"x": content(MIB + 9, 4), "y": content(100, 5)}
MEMORY = content(5000, 6)

WHILE_IT_RUNS = "taking back what is not so", "withdrawal of what was got in part"
"""Background tasks after which all that was said is so."""


@dataclass
class Trouble:
    """What goes wrong, and at which of the calls to the metadata store and the catalog; the calls are counted.

    ``fails``: that call alone; ``is down``: every call from that on; ``cancels``: the task that asks is cancelled.
    ``late``: what was asked for is done first, and the answer is lost.
    """

    kind: str = ""
    late: bool = False
    at: int = 0
    calls: int = 0
    victim: asyncio.Task[Any] | None = None
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def arm(self, at: int) -> None:
        """Count from now on."""
        self.at, self.calls, self.victim = at, 0, None

    def disarm(self) -> None:
        """All is well again."""
        self.at = 0

    @property
    def down(self) -> bool:
        """Whether nothing answers now."""
        return self.kind == "is down" and 0 < self.at <= self.calls

    def begins(self, error: MooncakeError) -> None:
        """A call begins. Any thread."""
        if self.at:
            self.calls += 1
        if not self.late:
            self._meet(error)

    def ends(self, error: MooncakeError) -> None:
        """The call was answered. Any thread."""
        if self.late:
            self._meet(error)

    def _meet(self, error: MooncakeError) -> None:
        if not self.at or self.calls < self.at or (self.calls > self.at and self.kind != "is down"):
            return
        if self.kind != "cancels":
            raise error
        if self.victim is not None:
            self.loop.call_soon_threadsafe(self.victim.cancel)


class TroubledStore(MemoryStore):
    """A handle on which each call may meet trouble."""

    def __init__(self, server: MemoryServer, trouble: Trouble) -> None:
        super().__init__(server)
        self._trouble = trouble

    async def _meet(self, call: Callable[[], Awaitable[T]]) -> T:
        error = MetadataUnavailable(url=self.url, detail="trouble")
        self._trouble.begins(error)
        await asyncio.sleep(0)
        result = await call()
        self._trouble.ends(error)
        await asyncio.sleep(0)
        return result

    async def get(self, key: str) -> KeyValue | None:
        return await self._meet(partial(super().get, key))

    async def scan(self, prefix: str, *, limit: int = 0, after: str = "") -> Page:
        return await self._meet(partial(super().scan, prefix, limit=limit, after=after))

    async def get_each(self, keys: Sequence[str]) -> list[KeyValue | None]:
        return await self._meet(partial(super().get_each, keys))

    async def scan_each(self, prefixes: Sequence[str], *, limit: int) -> list[Page]:
        return await self._meet(partial(super().scan_each, prefixes, limit=limit))

    async def commit(self, operations: Sequence[Operation], conditions: Sequence[Condition] = ()) -> int | None:
        return await self._meet(partial(super().commit, operations, conditions))

    async def grant(self, ttl: int) -> int:
        return await self._meet(partial(super().grant, ttl))

    async def keep_alive(self, lease: int) -> int:
        return await self._meet(partial(super().keep_alive, lease))


class World:
    """A node that meets trouble, another that holds something, and what may be registered."""

    def __init__(self, path: Path, server: MemoryServer, trouble: Trouble) -> None:
        self.trouble = trouble
        self.tree, self.old, self.theirs, self.dest = (path / name for name in ("tree", "old", "theirs", "dest"))
        self.calm = MemoryStore(server)
        self.node: Node
        self.other: Node

    def meet_trouble(self, node: Node) -> None:
        """Let this node's catalog meet trouble, too."""
        self.node = node
        catalog, trouble = node.holdings._catalog, self.trouble
        change = catalog.change

        def troubled(holdings: Sequence[tuple[Holding, Manifest]], gone: Sequence[Holding]) -> None:
            trouble.begins(StorageError(path="catalog.db", detail="database or disk is full"))
            change(holdings, gone)
            if trouble.kind == "cancels":
                trouble.ends(StorageError(path="catalog.db", detail="it never fails when it is done"))

        catalog.change = troubled  # type: ignore[method-assign]

    async def faults(self) -> list[str]:
        """How what is said, held, served and remembered differ."""
        node, found = self.node, []
        if not node.membership.ok:
            found.append("the node has not joined")
        tasks = {task["name"]: task["state"] for task in node.supervisor.report()}
        found += [f"{name} is not over" for name in WHILE_IT_RUNS if tasks.get(name, "ended") != "ended"]
        said: dict[str, str] = {}
        for item in (await self.calm.scan(records.REPLICAS)).items:
            digest, holder = item.key[len(records.REPLICAS) :].split("/")
            record = records.decode(records.ReplicaRecord, item.value)
            if holder == node.name and record is not None:
                said[digest] = record.state
        is_so = {digest: replica.state for digest, replica in node.holdings.replicas.items()}
        if said != is_so:
            found.append(f"said: {said}, but it is {is_so}")
        for digest, replica in node.holdings.replicas.items():
            room = memoryview(bytearray(replica.manifest.size))
            if not node.holdings.serving.read(digest, 0, room):
                found.append(f"{digest} is not served")
        remembered = {(h.name, h.root, h.digest) for h, _ in node.holdings._catalog.load()}
        held = {(h.name, h.root, h.digest) for h in node.holdings}
        if remembered != {entry for entry in held if entry[1] is not None}:
            found.append(f"remembered: {remembered}, held: {held}")
        names = {}
        for item in (await self.calm.scan(records.OBJECTS)).items:
            name = records.decode(records.ObjectRecord, item.value)
            assert name is not None
            names[name.name] = name.manifest
            if not (await self.calm.scan(records.replicas_prefix(name.manifest))).items:
                found.append(f"{name.name} stands for what nobody holds")
        found += [f"nobody knows of {name}" for name, _, _ in held if name not in names]
        return found

    async def settle(self, where: str) -> None:
        """Wait until what is said and what is held agree."""
        until = self.trouble.loop.time() + WAIT
        while faults := await self.faults():
            assert self.trouble.loop.time() < until, (where, faults)
            await asyncio.sleep(0.005)

    async def clear(self, where: str) -> None:
        """Unregister everything; after that nothing may be known of this node's."""
        for name in {holding.name for holding in self.node.holdings}:
            await self.node.unregister(name)
        await self.settle(f"{where}, and unregistered")
        assert (len(self.node.holdings), self.node.holdings.replicas) == (0, {}), where
        shutil.rmtree(self.dest, ignore_errors=True)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(settling, "SETTLE_AGAIN", Backoff(0.01, 0.01))
    monkeypatch.setattr(membership, "RETRY_SECONDS", 0.01)
    server = MemoryServer()
    made = World(tmp_path, server, Trouble())

    def limit(self: Hope) -> float:
        return -1.0 if self.wait is Wait.SOURCE and made.trouble.down else 60.0

    monkeypatch.setattr(Hope, "limit", property(limit))
    for path, files in ((made.tree, TREE), (made.old, OLD), (made.theirs, THEIRS)):
        write_tree(path, files)
    async with AsyncExitStack() as nodes:

        async def start(name: str, store: MemoryStore) -> Node:
            state = tmp_path / f"state of {name}"
            state.mkdir()
            node = await Node.start(NodeOptions(name, state=state, ttl=600), store)
            nodes.push_async_callback(node.close)
            return node

        made.other = await start("other", MemoryStore(server))
        await made.other.register(made.theirs, "theirs", hash_name=HASH)
        made.meet_trouble(await start("node", TroubledStore(server, made.trouble)))
        yield made


# One by one


class Cancelling(MemoryStore):
    """Cancels a task once a transaction has gone through, before the answer is heard."""

    victim: asyncio.Task[Any] | None = None

    async def commit(self, operations: Sequence[Operation], conditions: Sequence[Condition] = ()) -> int | None:
        done = await super().commit(operations, conditions)
        if self.victim is not None:
            self.victim.cancel()
            self.victim = None
            await asyncio.sleep(0)
        return done


async def register_n(node: Node, path: Path) -> None:
    write_tree(path, TREE)
    await node.register(path, "n", hash_name=HASH)


async def register_many_n(node: Node, path: Path) -> None:
    write_tree(path, TREE)
    await node.register_many([(path, "n")], hash_name=HASH)


async def register_memory_n(node: Node, _: Path) -> None:
    await node.register_memory("n", MEMORY, hash_name=HASH, chunk_size=0, force=False)


@pytest.mark.parametrize("register", [register_n, register_many_n, register_memory_n], ids=lambda step: step.__name__)
async def test_a_register_that_is_cancelled_when_it_was_said_is_not_listed(
    tmp_path: Path, register: Callable[[Node, Path], Coroutine[Any, Any, None]]
) -> None:
    """D5: nobody is sent to a node that does not hold what it said."""
    server = MemoryServer()
    store = Cancelling(server)
    node = await Node.start(NodeOptions("a", state=tmp_path), store)
    try:
        store.victim = work = asyncio.create_task(register(node, tmp_path / "tree"))
        with pytest.raises(asyncio.CancelledError):
            await work
        assert len(node.holdings) == 0
        assert (await MemoryStore(server).scan(records.REPLICAS)).items == ()
        assert (await MemoryStore(server).scan(records.OBJECTS)).items == ()
    finally:
        await node.close()


async def test_a_get_that_the_catalog_has_no_room_for_is_whole_when_it_is_repeated(tmp_path: Path) -> None:
    """D6: it does not say that it seeds what it lists as a part, and forgets when it ends."""
    server, state = MemoryServer(), tmp_path / "state"
    state.mkdir()
    write_tree(tmp_path / "tree", TREE)
    async with AsyncExitStack() as nodes:

        async def start(name: str, **options: Any) -> Node:
            node = await Node.start(NodeOptions(name, **options), MemoryStore(server))
            nodes.push_async_callback(node.close)
            return node

        a, b = await start("a"), await start("b", state=state)
        digest = (await a.register(tmp_path / "tree", "n", hash_name=HASH))["manifest"]
        b.holdings._catalog._db.execute("PRAGMA query_only = ON")
        with pytest.raises(StorageError, match="readonly"):
            await b.get(GetRequest("n", tmp_path / "dest"), lambda _: None)
        assert read_tree(tmp_path / "dest") == TREE
        b.holdings._catalog._db.execute("PRAGMA query_only = OFF")
        again = await b.get(GetRequest("n", tmp_path / "dest"), lambda _: None)
        assert again.seeding
        assert (await a.registry.replicas(digest))["b"].state == "complete"
        await b.close()
        b = await start("b", state=state)
        assert [holding.name for holding in b.holdings] == ["n"]


async def test_wrong_bytes_are_served_no_more_though_the_catalog_is_full(world: World) -> None:
    await damage(world)
    world.trouble.kind = "is down"
    world.trouble.arm(1)
    assert not (await world.node.verify("n", lambda *_: None))["ok"]
    assert world.node.holdings.replicas == {}
    world.trouble.disarm()
    await world.settle("when there is room again")


async def test_what_is_withdrawn_in_a_short_outage_is_not_listed_after_it(world: World) -> None:
    """The lease outlives the outage, so that nothing goes away with it."""
    for name in ("n", "also"):
        await world.node.register(world.tree, name, hash_name=HASH)
    lease = world.node.registry.lease
    world.trouble.kind = "is down"
    for name in ("n", "also"):
        world.trouble.arm(2)  # the first is the catalog's
        assert (await world.node.unregister(name))["removed"] is None, "nobody knows whether others hold it"
    world.trouble.disarm()
    await world.settle("after the outage")
    assert world.node.registry.lease == lease
    assert [o["name"] for o in (await world.other.listing("", limit=0, after=""))["objects"]] == ["theirs"]


async def test_a_get_that_still_runs_when_its_node_closes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails as others do, and what it had begun to serve is gone with the node."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def hang(self: PullWork, *_: Any, **__: Any) -> None:
        begun.set()
        await go_on.wait()
        raise NoLivePeer(name="theirs", detail="the node is closed")

    monkeypatch.setattr(PullWork, "run", hang)
    work = asyncio.create_task(get(world))
    await asyncio.wait_for(begun.wait(), WAIT)
    assert len(world.node.holdings.replicas) == 1
    await world.node.close()
    go_on.set()
    with pytest.raises(NoLivePeer):
        await asyncio.wait_for(work, WAIT)
    assert [k.key for k in (await world.calm.scan(records.REPLICAS)).items if k.key.endswith("/node")] == []


async def test_what_takes_long_with_many_files_is_done_in_threads(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D15: the event loop neither encodes manifests, nor looks at files, nor writes the catalog, nor unregisters."""
    calls: Counter[str] = Counter()

    def off_the_loop(owner: object, name: str) -> None:
        call = getattr(owner, name)

        def checked(*arguments: Any, **options: Any) -> Any:
            assert threading.current_thread() is not threading.main_thread(), f"{name} holds up the event loop"
            calls[name] += 1
            return call(*arguments, **options)

        monkeypatch.setattr(owner, name, checked)

    off_the_loop(Manifest, "to_bytes")
    off_the_loop(Holdings, "fault")
    off_the_loop(looks, "look_at")  # of the watcher, who may have been here or not
    off_the_loop(Catalog, "change")
    off_the_loop(SegmentServer, "unregister")
    off_the_loop(Planner, "__init__")
    off_the_loop(Manifest, "bytes_of")
    await register(world)
    await register_many_over(world)
    await get(world)
    await get(world)  # it is there: is it as it was?
    await world.other.get(GetRequest("n", world.dest.with_name("copy")), lambda _: None)
    await world.clear("at the end")
    assert calls.keys() >= {"to_bytes", "fault", "change", "unregister", "__init__", "bytes_of"}


async def register_many_over(world: World) -> None:
    items = [(world.old, "n"), (world.tree, "m")]
    assert not (await world.node.register_many(items, hash_name=HASH, force=True))["failed"]


# Operations, each with what is there before it


async def nothing(world: World) -> None:
    """Nothing is there."""


async def register(world: World) -> None:
    await world.node.register(world.tree, "n", hash_name=HASH)


async def register_old(world: World) -> None:
    await world.node.register(world.old, "n", hash_name=HASH)


async def register_over(world: World) -> None:
    await world.node.register(world.tree, "n", hash_name=HASH, force=True)


async def register_many(world: World) -> None:
    made = await world.node.register_many([(world.tree, "n"), (world.old, "m"), (world.old, "o")], hash_name=HASH)
    assert not made["failed"]


async def register_memory(world: World) -> None:
    await world.node.register_memory("n", MEMORY, hash_name=HASH)


async def register_memory_over(world: World) -> None:
    await world.node.register_memory("n", MEMORY[1:], hash_name=HASH, force=True)


async def get(world: World) -> None:
    await world.node.get(GetRequest("theirs", world.dest), lambda _: None)
    assert read_tree(world.dest) == THEIRS


async def copy_to_dest(world: World) -> None:
    shutil.copytree(world.tree, world.dest)
    await world.node.register(world.dest, "n", hash_name=HASH)


async def get_over(world: World) -> None:
    await world.node.get(GetRequest("theirs", world.dest, force=True), lambda _: None)
    assert read_tree(world.dest) == THEIRS


async def register_two_contents(world: World) -> None:
    """Two contents under one name, as when a name was given to something newer."""
    await world.node.register(world.old, "n", hash_name=HASH)
    await world.other.register(world.tree, "n", hash_name=HASH, force=True)
    await world.node.get(GetRequest("n", world.dest), lambda _: None)
    await world.other.unregister("n")


async def unregister(world: World) -> None:
    if world.node.holdings.named("n"):
        await world.node.unregister("n")


async def damage(world: World) -> None:
    await world.node.register(world.tree, "n", hash_name=HASH)
    about = (world.tree / "a").stat()
    (world.tree / "a").write_bytes(b"?" * about.st_size)
    os.utime(world.tree / "a", ns=(about.st_atime_ns, about.st_mtime_ns))


async def verify(world: World) -> None:
    if world.node.holdings.named("n"):
        await world.node.verify("n", lambda *_: None)


Step = Callable[[World], Coroutine[Any, Any, None]]
OPERATIONS: list[tuple[Step, Step]] = [
    (nothing, register),
    (register_old, register_over),
    (nothing, register_many),
    (nothing, register_memory),
    (register_memory, register_memory_over),
    (nothing, get),
    (copy_to_dest, get_over),
    (register, unregister),
    (register_many, unregister),
    (register_two_contents, unregister),
    (damage, verify),
]
TROUBLES = [
    ("fails", False),
    ("fails", True),
    ("is down", False),
    ("is down", True),
    ("cancels", False),
    ("cancels", True),
]


async def outcome(world: World, work: Coroutine[Any, Any, None]) -> bool:
    """Run it as a task that trouble may cancel; whether it succeeded."""
    world.trouble.victim = task = asyncio.create_task(work)
    await asyncio.wait({task}, timeout=WAIT)
    world.trouble.disarm()
    assert task.done()
    if task.cancelled():
        return False
    error = task.exception()
    assert error is None or isinstance(error, MooncakeError), error
    return error is None


async def try_each(
    world: World, before: Step, operation: Step, arm: Callable[[int], Coroutine[Any, Any, None]]
) -> None:
    """Let the operation meet trouble at its first point, its second, and so on until it meets none."""
    for number in itertools.count(1):
        where = f"{operation.__name__} after {before.__name__}, trouble at {number}"
        await before(world)
        await world.settle(f"before {where}")
        succeeded = await outcome(world, arm(number))
        await world.settle(where)
        over = world.trouble.calls < number
        assert succeeded or not over, where
        await operation(world)
        await world.settle(f"{where}, repeated")
        await world.clear(where)
        write_again(world)
        if over:
            assert number > 1, "it met nothing at all"
            return


def write_again(world: World) -> None:
    shutil.rmtree(world.tree)
    write_tree(world.tree, TREE)


@pytest.mark.parametrize(("kind", "late"), TROUBLES, ids=str)
@pytest.mark.parametrize(("before", "operation"), OPERATIONS, ids=lambda step: step.__name__)
async def test_wherever_the_metadata_or_the_catalog_fail(
    world: World, before: Step, operation: Step, kind: str, late: bool
) -> None:
    """D5, D6: an operation that fails or is cancelled leaves nothing said that is not so, and can be repeated."""
    world.trouble.kind, world.trouble.late = kind, late

    async def run(number: int) -> None:
        world.trouble.arm(number)
        world.trouble.victim = asyncio.current_task()
        await operation(world)

    await try_each(world, before, operation, run)


@types.coroutine
def cancelled_at(number: int, work: Coroutine[Any, Any, None], trouble: Trouble) -> Generator[Any, Any, None]:
    """Run ``work``, and cancel its task when it waits for the time of that number."""
    thrown: BaseException | None = None
    while True:
        try:
            waited_for = work.throw(thrown) if thrown is not None else work.send(None)
        except StopIteration:
            return
        thrown = None
        trouble.calls += 1
        if trouble.calls == number:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        try:
            yield waited_for
        except BaseException as error:
            thrown = error


@pytest.mark.parametrize(("before", "operation"), OPERATIONS, ids=lambda step: step.__name__)
async def test_wherever_it_is_cancelled(world: World, before: Step, operation: Step) -> None:
    """D5, D6: as above, cancelled at each of its own awaits."""

    async def run(number: int) -> None:
        world.trouble.calls = 0
        await cancelled_at(number, operation(world), world.trouble)

    await try_each(world, before, operation, run)
