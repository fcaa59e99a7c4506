"""Many objects, and objects of many files: what they cost etcd, the peers and this process, counted on real servers."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from engine.memory.open_files import MAX_OPEN_FILES
from engine.memory.region import Region
from engine.transports.socket_channel import SocketChannel
from p2pstore.cluster import records
from p2pstore.cluster.peer_requests import PeerRequests
from p2pstore.errors import MetadataUnavailable, ObjectExists, UsageError
from p2pstore.holding import source_watcher
from p2pstore.metadata.etcd import EtcdStore
from p2pstore.metadata.store import MAX_OPERATIONS
from p2pstore.node import Node
from p2pstore.node_options import NodeOptions
from p2pstore.objects import tree_hash
from p2pstore.objects.selection import Selection
from p2pstore.objects.steps import Steps
from p2pstore.pull.get import GetRequest, GetResult
from tests.p2pstore.metadata.servers import EtcdServer, any_binary
from tests.p2pstore.samples import MIB, content
from tests.p2pstore.tensors.checkpoints import Shapes, file_of

WAIT = 100.0
FILES = 10_000
OBJECTS = 1_000

Start = Callable[..., Awaitable[Node]]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where there is one: ten thousand files are made quickly there."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="many-test-", dir=memory if memory.is_dir() else tmp_path))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def etcd(place: Path) -> Iterator[EtcdServer]:
    server = EtcdServer(any_binary(), place).start()
    yield server
    server.close()


@pytest.fixture
async def start(place: Path, etcd: EtcdServer) -> AsyncIterator[Start]:
    async with AsyncExitStack() as nodes:

        async def starter(name: str) -> Node:
            state = place / f"state of {name}"
            state.mkdir(exist_ok=True)
            # A lease that ends on a slow machine would be a write that no register made.
            made = await Node.start(NodeOptions(name, state=state, ttl=int(WAIT)), EtcdStore([etcd.endpoint]))
            nodes.push_async_callback(made.close)
            return made

        yield starter


async def revision(node: Node) -> int:
    """How often etcd was written."""
    return (await node.registry.store.scan(records.PREFIX, limit=1)).revision


async def written(node: Node) -> list[tuple[int, str]]:
    """What is in etcd, the latest last: it says who wrote more often than a test expects."""
    return sorted((item.mod_revision, item.key) for item in (await node.registry.store.scan(records.PREFIX)).items)


async def get(node: Node, name: str, dest: Path) -> GetResult:
    return await asyncio.wait_for(node.get(GetRequest(name, dest), lambda _: None), WAIT)


def small_files(root: Path, count: int) -> list[Path]:
    root.mkdir()
    paths = [root / f"{number:05d}" for number in range(count)]
    for path in paths:
        path.write_bytes(b"content of " + path.name.encode())
    return paths


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def whole_listing(node: Node, limit: int) -> tuple[list[str], int]:
    """Every name, page by page, and how many pages."""
    names: list[str] = []
    after, pages = "", 0
    while True:
        page = await node.listing("", limit=limit, after=after)
        assert len(page["objects"]) <= limit
        names += [item["name"] for item in page["objects"]]
        assert all((item["complete"], item["partial"]) == (1, 0) for item in page["objects"])
        pages += 1
        after = page["next"]
        if not after:
            return names, pages


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what peers are asked for: ranges over the data plane, and calls over the control plane."""
    counted: Counter[str] = Counter()
    submit, request = SocketChannel.submit, PeerRequests._signed

    def counting_submit(self: SocketChannel, address: int, length: int, place: Region | None = None) -> None:
        counted["ranges"] += 1
        submit(self, address, length, place)

    def counting_request(self: PeerRequests, control: str, path: str, *how: Any) -> Any:
        counted["calls"] += 1
        return request(self, control, path, *how)

    monkeypatch.setattr(SocketChannel, "submit", counting_submit)
    monkeypatch.setattr(PeerRequests, "_signed", counting_request)
    return counted


async def test_a_directory_of_ten_thousand_files(start: Start, place: Path, asked: Counter[str]) -> None:
    a, b = await start("a"), await start("b")
    paths = small_files(place / "tree", FILES)
    before, open_before = await revision(a), descriptors()
    made = await a.register(place / "tree", "tree", hash_name="xxh3_128")
    assert (made["files"], made["chunks"]) == (FILES, FILES)
    assert await revision(a) == before + 1, await written(a)
    result = await get(b, "tree", place / "copy")
    assert result.bytes_pulled == result.size == made["size"]
    assert await revision(a) == before + 3, await written(a)  # that it has a part, that it has all
    assert 0 < asked["ranges"] < FILES / 100, asked
    assert 0 < asked["calls"] < FILES / 100, asked
    assert descriptors() - open_before < 2 * MAX_OPEN_FILES
    for path in (paths[0], paths[4711], paths[-1]):
        assert (place / "copy" / path.name).read_bytes() == path.read_bytes()
    assert sum(1 for _ in os.scandir(place / "copy")) == FILES


async def test_many_objects_share_their_writes(start: Start, etcd: EtcdServer, place: Path) -> None:
    a = await start("a")
    paths = small_files(place / "files", OBJECTS)
    items = [(path, f"many/{path.name}") for path in paths]
    before, open_before = await revision(a), descriptors()
    made = await a.register_many(items, hash_name="xxh3_128")
    assert (len(made["objects"]), made["failed"]) == (OBJECTS, [])
    writes = await revision(a) - before
    assert writes <= 2 * OBJECTS / MAX_OPERATIONS + 1
    assert descriptors() - open_before < MAX_OPEN_FILES
    assert await whole_listing(a, 300) == ([name for _, name in items], 4)

    # Again: all is there, and the names need no write.
    await a.register_many(items, hash_name="xxh3_128")
    assert len(a.holdings) == OBJECTS

    # What was said is said again after a restart of the agent, and where etcd forgot all, with as few writes.
    before = await revision(a)
    await a.membership.join()
    assert await revision(a) - before <= OBJECTS / MAX_OPERATIONS + 2
    etcd.end()
    etcd.wipe()
    etcd.start()
    a.registry.lease = 0
    await a.membership.join()
    assert await revision(a) <= 2 * OBJECTS / MAX_OPERATIONS + 5
    assert (await whole_listing(a, 1000))[0] == [name for _, name in items]

    b = await start("b")
    await get(b, "many/00007", place / "copy")
    assert (place / "copy").read_bytes() == paths[7].read_bytes()


async def test_a_restarted_agent_holds_them_all(start: Start, place: Path) -> None:
    a = await start("a")
    items = [(path, path.name) for path in small_files(place / "files", 300)]
    await a.register_many(items, hash_name="xxh3_128")
    await a.close()
    items[5][0].write_bytes(b"other")
    again = await start("a")
    assert len(again.holdings) == 299
    assert again.status()["objects"] == 299


async def test_what_cannot_be_registered_is_told_and_the_rest_is_there(start: Start, place: Path) -> None:
    a, b = await start("a"), await start("b")
    paths = small_files(place / "files", 150)
    await b.register(paths[0], "n/00003", hash_name="xxh3_128")  # taken, by other content
    await b.register(paths[4], "n/00004", hash_name="xxh3_128")  # taken, by the same
    os.symlink("nowhere", place / "link")
    items = [(path, f"n/{path.name}") for path in paths]
    items += [(place / "none", "none"), (place / "link", "link"), (paths[1], "../x")]
    made = await a.register_many(items, hash_name="xxh3_128")
    assert len(made["objects"]) == 149
    assert [(f["name"], f["error"]["type"]) for f in made["failed"]] == [
        ("n/00003", "ObjectExists"),
        ("none", "PathNotFound"),
        ("link", "BadSource"),
        ("../x", "BadName"),
    ]
    assert set(await b.registry.replicas((await b.registry.find("n/00004")).manifest)) == {"a", "b"}  # type: ignore[union-attr]
    assert [h.name for h in a.holdings.named("n/00003")] == []

    forced = await a.register_many(items[:150], hash_name="xxh3_128", force=True)
    assert (len(forced["objects"]), forced["failed"]) == (150, [])
    with pytest.raises(UsageError, match="two paths"):
        await a.register_many([(paths[0], "x"), (paths[1], "x")], hash_name="xxh3_128")


async def test_equal_files_and_large_ones_are_many_objects_too(start: Start, place: Path) -> None:
    a, b = await start("a"), await start("b")
    (place / "d").mkdir()
    (place / "d" / "in it").write_bytes(b"1")
    for name in ("x", "y", "z"):
        (place / name).write_bytes(b"the same")
    (place / "large").write_bytes(content(65 * MIB))
    (place / "empty").write_bytes(b"")
    items = [(place / name, name) for name in ("x", "y", "z", "large", "empty", "d")]
    made = await a.register_many(items, hash_name="xxh3_128")
    assert [one["name"] for one in made["objects"]] == [name for _, name in items]
    assert made["size"] == 3 * 8 + 65 * MIB + 1
    result = await get(b, "large", place / "copy")
    assert result.bytes_pulled == 65 * MIB
    await a.unregister("x")
    assert [item["name"] for item in (await a.listing("", limit=9, after=""))["objects"]] == [
        "d",
        "empty",
        "large",
        "y",
        "z",
    ]


async def test_the_dead_etcd_ends_it_and_what_was_published_stays(start: Start, etcd: EtcdServer, place: Path) -> None:
    a = await start("a")
    items = [(path, path.name) for path in small_files(place / "files", 200)]

    def progress(done: int, total: int) -> None:
        assert total == 200
        if done < 100:
            etcd.end()

    with pytest.raises(MetadataUnavailable):
        await a.register_many(items, hash_name="xxh3_128", progress=progress)
    assert 0 < len(a.holdings) < 200
    etcd.start()
    made = await a.register_many(items, hash_name="xxh3_128")
    assert len(made["objects"]) == len(a.holdings) == 200


async def test_changes_among_many_are_found(start: Start, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_watcher, "WATCH_SECONDS", 0.05)
    monkeypatch.setattr(source_watcher, "LOOKED_AT_ONCE", 16)
    a = await start("a")
    paths = small_files(place / "files", 100)
    await a.register_many([(path, path.name) for path in paths], hash_name="xxh3_128")
    for path in (paths[3], paths[50], paths[99]):
        path.write_bytes(b"changed since")

    async def withdrawn() -> None:
        while len(a.holdings) > 97 or len((await whole_listing(a, 1000))[0]) > 97:  # noqa: ASYNC110 - nothing tells us
            await asyncio.sleep(0.02)

    await asyncio.wait_for(withdrawn(), WAIT)
    assert not a.holdings.named(paths[50].name)


async def test_a_get_writes_etcd_twice_whatever_its_size(start: Start, place: Path) -> None:
    a, *getters = [await start(name) for name in "abcd"]
    sizes = {"small": 100, "larger": 5 * MIB, "large": 40 * MIB + 1}
    for name, size in sizes.items():
        (place / name).write_bytes(content(size))
    costs = {}
    for name in sizes:
        before = await revision(a)
        await a.register(place / name, name, hash_name="xxh3_128", chunk_size=MIB)
        after_register = await revision(a)
        await get(getters[0], name, place / f"{name} alone")
        after_get = await revision(a)
        await asyncio.gather(*(get(node, name, place / f"{name} {node.name}") for node in getters[1:]))
        costs[name] = (after_register - before, after_get - after_register, await revision(a) - after_get)
    assert costs == dict.fromkeys(sizes, (1, 2, 4))  # a register, a get, a broadcast to two


async def test_what_an_earlier_version_registered_is_registered_again(start: Start, place: Path) -> None:
    """It cut safetensors files otherwise: the same files are the same object all the same."""
    shapes: Shapes = {f"layers.{n}": ("F32", (MIB // 4,)) for n in range(3)}
    a, b = await start("a"), await start("b")
    for name in "ab":
        (place / name).write_bytes(file_of(shapes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_hash, "find_origins", lambda *_: {})
        before = await a.register(place / "a", "n", hash_name="xxh3_128")
    for node, path in ((a, "a"), (b, "b")):
        again = await node.register(place / path, "n", hash_name="xxh3_128")
        assert again["manifest"] == before["manifest"]
    in_memory = await b.register_memory("m", (place / "b").read_bytes(), hash_name="xxh3_128")
    assert in_memory["manifest"] == (await a.register(place / "a", "m", hash_name="xxh3_128"))["manifest"]
    assert in_memory["manifest"] != before["manifest"]
    (place / "b").write_bytes(file_of(shapes, seed=1))
    with pytest.raises(ObjectExists):
        await b.register(place / "b", "n", hash_name="xxh3_128")


async def test_a_path_that_gets_another_name_says_which_it_loses(start: Start, place: Path) -> None:
    node = await start("a")
    root = place / "files"
    small_files(root, 2)
    notes: list[str] = []

    async def register(name: str, *patterns: str) -> None:
        notes.clear()
        await node.register(root, name, hash_name="xxh3_128", selection=Selection(exclude=patterns), note=notes.append)

    await register("one")
    await register("two")  # the same content has any number of names
    assert notes == []
    await register("three", "00001")
    assert notes == [f"{root}: no longer served as one, two, which had other content"]
    assert [h.name for h in node.holdings] == ["three"]
    await register("three", "00001")
    assert notes == []


async def test_a_stream_whose_register_is_cancelled_when_it_is_held_keeps_its_file(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start("a")
    publish = node.parts.publisher.publish

    async def cancelled_then(*given: Any, **options: Any) -> Any:
        await publish(*given, **options)
        raise asyncio.CancelledError

    monkeypatch.setattr(node.parts.publisher, "publish", cancelled_then)
    incoming = await asyncio.to_thread(node.incoming, "s", "xxh3_128")
    await asyncio.to_thread(incoming.write, b"stream")
    with pytest.raises(asyncio.CancelledError):
        await node.register_incoming(incoming, "s", force=False, steps=Steps())
    (held,) = node.parts.holdings.named("s")
    assert node.parts.holdings.fault(held) == ""
    assert await asyncio.to_thread(Path(held.place).read_bytes) == b"stream"


async def test_a_stream_that_is_not_held_leaves_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    node = await start("a")

    async def cancelled(*_: Any, **__: Any) -> Any:
        raise asyncio.CancelledError

    monkeypatch.setattr(node.parts.publisher, "publish", cancelled)
    incoming = await asyncio.to_thread(node.incoming, "s", "xxh3_128")
    with pytest.raises(asyncio.CancelledError):
        await node.register_incoming(incoming, "s", force=False, steps=Steps())
    assert os.listdir(incoming.path.parent) == []
