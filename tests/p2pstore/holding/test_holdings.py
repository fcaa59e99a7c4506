"""What a node holds it serves, from whichever place still has it, until the last is gone."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.errors import StorageError
from engine.serving.segment_server import SegmentServer
from p2pstore.holding import holdings as module
from p2pstore.holding.catalog import Catalog, Holding
from p2pstore.holding.holdings import Holdings
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.source import scan
from p2pstore.objects.tree_hash import hash_tree
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.reuse import LocalChunks
from tests.p2pstore.pull.test_file_destination import feed
from tests.p2pstore.samples import MIB, content, manifest_of, record_of, write_tree

FILES = {"a": content(MIB + 9), "b/c": content(100, 2), "d": b""}
WHOLE = b"".join(FILES.values())


@pytest.fixture
def engine() -> Iterator[SegmentServer]:
    with SegmentServer() as made:
        yield made


class Held:
    """Holdings, and what they say changed."""

    def __init__(self, engine: SegmentServer, path: Path) -> None:
        self.catalog = Catalog(path)
        self.changed: list[tuple[Holding, str]] = []
        self.news = asyncio.Event()
        self.holdings = Holdings(engine, self.catalog, self.on_changed)

    async def on_changed(self, holding: Holding, reason: str) -> None:
        self.changed.append((holding, reason))
        self.news.set()

    def read(self, manifest: Manifest) -> bytes | None:
        room = bytearray(manifest.size)
        return bytes(room) if self.holdings.read(manifest.digest, 0, memoryview(room)) else None


@pytest.fixture
async def held(engine: SegmentServer, tmp_path: Path) -> AsyncIterator[Held]:
    made = Held(engine, tmp_path / "catalog.db")
    yield made
    made.catalog.close()


def scanned(root: Path, name: str = "n", role: str = "gold") -> tuple[Holding, Manifest]:
    tree = scan(root)
    manifest = hash_tree(tree, hash_name="xxh3_128")
    return Holding(record_of(name, manifest), role, root, tree.files), manifest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_tree(tmp_path / "tree", FILES)
    return tmp_path / "tree"


async def test_add_and_remove(held: Held, root: Path, engine: SegmentServer) -> None:
    holding, manifest = scanned(root)
    replica = await held.holdings.add(holding, manifest)
    assert held.read(manifest) == WHOLE
    room = bytearray(100)
    engine.read(engine.address_of_self(), replica.address + MIB + 9, memoryview(room))
    assert room == FILES["b/c"]
    assert (replica.state, replica.role, len(held.holdings)) == ("complete", "gold", 1)
    assert held.holdings.named("n") == held.holdings.of(manifest.digest) == [holding]
    assert held.holdings.at(root) == holding
    assert held.holdings.manifest(manifest.digest) == manifest
    assert not await held.holdings.remove(holding)
    assert held.read(manifest) is None
    assert held.holdings.manifest(manifest.digest) is None
    assert held.holdings.replicas == {}
    assert list(held.catalog.load()) == []


async def test_an_empty_object_is_held_without_an_address(held: Held, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    holding, manifest = scanned(tmp_path / "empty")
    assert (await held.holdings.add(holding, manifest)).address == 0
    assert not await held.holdings.remove(holding)


async def test_another_place_takes_over(held: Held, root: Path, tmp_path: Path) -> None:
    write_tree(tmp_path / "copy", FILES)
    one, manifest = scanned(root)
    two, _ = scanned(tmp_path / "copy", "other", "replica")
    replica = await held.holdings.add(one, manifest)
    address = replica.address
    assert await held.holdings.add(two, manifest) is replica
    assert replica.role == "gold"
    assert await held.holdings.remove(one)
    (root / "a").unlink()
    assert replica.address == address
    assert held.read(manifest) == WHOLE
    assert not await held.holdings.remove(two)


async def test_the_place_that_does_not_serve_may_go(held: Held, root: Path, tmp_path: Path) -> None:
    write_tree(tmp_path / "copy", FILES)
    one, manifest = scanned(root)
    two, _ = scanned(tmp_path / "copy")
    await held.holdings.add(one, manifest)
    await held.holdings.add(two, manifest)
    assert await held.holdings.remove(two)
    assert held.read(manifest) == WHOLE
    assert not await held.holdings.remove(one)


async def test_a_touched_file_registered_again_is_served_again(held: Held, root: Path) -> None:
    before, manifest = scanned(root)
    await held.holdings.add(before, manifest)
    os.utime(root / "a", ns=(5, 5))
    assert held.read(manifest) is None
    again, same = scanned(root)
    assert same == manifest
    await held.holdings.add(again, manifest)
    assert held.read(manifest) == WHOLE
    assert not await held.holdings.remove(again)
    assert held.read(manifest) is None


async def test_restore(held: Held, root: Path, tmp_path: Path, engine: SegmentServer) -> None:
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    for name in ("touched", "changed", "gone"):
        write_tree(tmp_path / name, {"": content(50, len(name))})
        await held.holdings.add(*scanned(tmp_path / name, name))
    os.utime(tmp_path / "touched", ns=(5, 5))
    (tmp_path / "changed").write_bytes(b"other")
    (tmp_path / "gone").unlink()
    again = Holdings(engine, held.catalog, held.on_changed)
    lost = await again.restore()
    assert {h.name for h in lost} == {"changed", "gone"}
    assert {h.name for h in again} == {"n", "touched"}
    room = bytearray(50)
    assert again.read(again.named("touched")[0].digest, 0, memoryview(room))
    assert {h.name for h, _ in held.catalog.load()} == {"n", "touched"}
    assert await Holdings(engine, held.catalog, held.on_changed).restore() == []


async def test_watch_gives_up_what_changed(
    held: Held, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    write_tree(tmp_path / "stays", {"": b"stays"})
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    await held.holdings.add(*scanned(tmp_path / "stays", "s"))
    watching = asyncio.create_task(held.holdings.watch())
    try:
        (root / "b" / "c").write_bytes(b"changed")
        await asyncio.wait_for(held.news.wait(), 30)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    ((given_up, reason),) = held.changed
    assert given_up == holding
    assert "b/c" in reason
    assert [h.name for h in held.holdings] == ["s"]
    assert held.read(manifest) is None


class Full:
    """Makes a catalog's file system full, and has room again."""

    def __init__(self, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused = asyncio.Event()
        self._full = True
        self._change = catalog.change
        monkeypatch.setattr(catalog, "change", self.change)

    def change(self, holdings: Sequence[tuple[Holding, Manifest]], gone: Sequence[Holding]) -> None:
        if self._full and gone:
            self.refused.set()
            raise StorageError(path="catalog.db", detail="database or disk is full")
        self._change(holdings, gone)

    def make_room(self) -> None:
        self._full = False


async def until(condition: Callable[[], bool], watching: asyncio.Task[None]) -> None:
    async def poll() -> None:
        while not condition():
            assert not watching.done(), "nobody watches any more"
            await asyncio.sleep(0.01)

    await asyncio.wait_for(poll(), 60)


async def test_changed_sources_are_withdrawn_though_the_catalog_was_full(
    held: Held, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D3: the watcher died of it, and changed sources were noticed by nobody but a reader."""
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    write_tree(tmp_path / "second", {"": b"second"})
    await held.holdings.add(*scanned(root))
    await held.holdings.add(*scanned(tmp_path / "second", "s"))
    full = Full(held.catalog, monkeypatch)
    watching = asyncio.create_task(held.holdings.watch())
    try:
        (root / "a").unlink()
        await asyncio.wait_for(full.refused.wait(), 60)
        (tmp_path / "second").unlink()
        full.make_room()
        await until(lambda: {holding.name for holding, _ in held.changed} == {"n", "s"}, watching)
        await until(lambda: list(held.catalog.load()) == [], watching)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert len(held.holdings) == 0


async def test_a_source_whose_disk_fails_is_withdrawn_and_one_that_can_be_read_again_is_not(
    held: Held, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D18: its stamps are as they were, so a look at them found nothing."""
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    broken = True

    def fault(path: str, offset: int) -> str:
        asked.append((path, offset))
        return "it cannot be read: input/output error" if broken else ""

    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(module, "reading_fault", fault)
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    path = holding.spans[0].path
    broken = False
    held.holdings._suspect_disk(path, 3, "Input/output error")
    watching = asyncio.create_task(held.holdings.watch())
    try:
        await until(lambda: asked == [(path, 3)], watching)
        broken = True
        held.holdings._suspect_disk(path, 4, "Input/output error")
        await until(lambda: bool(held.changed), watching)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert held.changed[0][1] == f"{path}: it cannot be read: input/output error"
    assert asked == [(path, 3), (path, 4)]
    assert len(held.holdings) == 0


async def test_a_changed_source_is_served_no_more_though_the_catalog_is_full(
    held: Held, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    Full(held.catalog, monkeypatch)
    watching = asyncio.create_task(held.holdings.watch())
    try:
        (root / "a").write_bytes(b"changed")
        await until(lambda: bool(held.changed), watching)
        assert held.holdings.replicas == {}
        (root / "a").write_bytes(FILES["a"])
        await held.holdings.add(*scanned(root))
        monkeypatch.undo()
        await until(lambda: not held.holdings._to_forget, watching)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert [h.name for h, _ in held.catalog.load()] == ["n"], "what lies there again must not be forgotten"


async def test_a_holding_that_the_catalog_cannot_forget_stays_as_it_is(
    held: Held, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    full = Full(held.catalog, monkeypatch)
    with pytest.raises(StorageError):
        await held.holdings.remove(holding)
    assert held.holdings.named("n") == [holding]
    assert held.read(manifest) == WHOLE
    full.make_room()
    assert not await held.holdings.remove(holding)


async def test_who_could_not_be_told_of_a_change_is_told_again(
    held: Held, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path / "second", {"": b"second"})
    await held.holdings.add(*scanned(root))
    await held.holdings.add(*scanned(tmp_path / "second", "s"))
    failed: list[str] = []

    async def fails_once(holding: Holding, reason: str) -> None:
        if holding.name == "n" and not failed:
            failed.append(holding.name)
            raise RuntimeError("a bug")
        await held.on_changed(holding, reason)

    monkeypatch.setattr(held.holdings, "_on_changed", fails_once)
    (root / "a").unlink()
    (tmp_path / "second").unlink()
    with pytest.raises(RuntimeError, match="a bug"):
        await held.holdings._look_at_all()
    assert [holding.name for holding, _ in held.changed] == ["s"]
    await held.holdings._look_at_all()
    assert [holding.name for holding, _ in held.changed] == ["s", "n"]


async def test_a_refused_read_makes_it_look_at_once(held: Held, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 600.0)
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    watching = asyncio.create_task(held.holdings.watch())
    try:
        await asyncio.sleep(0)
        (root / "a").write_bytes(b"changed")
        assert held.read(manifest) is None
        await asyncio.wait_for(held.news.wait(), 30)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert len(held.holdings) == 0


async def test_between_looks_nothing_holds_on_to_a_holding(
    held: Held, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    looked = asyncio.Event()
    look = held.holdings._look_at_all

    async def look_once() -> None:
        await look()
        monkeypatch.setattr(module, "WATCH_SECONDS", 1000.0)
        looked.set()

    monkeypatch.setattr(held.holdings, "_look_at_all", look_once)
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    watching = asyncio.create_task(held.holdings.watch())
    try:
        await asyncio.wait_for(looked.wait(), 60)
        kept = weakref.ref(holding)
        await held.holdings.remove(holding)
        del holding

        async def forgotten() -> None:
            while kept() is not None:  # noqa: ASYNC110 - the thread that looked lets go of it soon after
                await asyncio.sleep(0.01)

        await asyncio.wait_for(forgotten(), 60)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_partial_replica_becomes_whole(held: Held, tmp_path: Path) -> None:
    manifest = manifest_of({"": content(3 * MIB)}, MIB)
    destination = FileDestination(tmp_path / "dest", manifest, "n")
    replica = await held.holdings.serve_partial(destination)
    data = content(3 * MIB)
    assert replica.state == "partial"
    feed(destination, range(1, 2), data[MIB : 2 * MIB])
    room = memoryview(bytearray(MIB))
    assert held.holdings.read(manifest.digest, MIB, room)
    assert room == data[MIB : 2 * MIB]
    assert not held.holdings.read(manifest.digest, 0, room)
    assert not held.holdings.read(manifest.digest, MIB, memoryview(bytearray(MIB + 1)))
    feed(destination, range(1), data[:MIB])
    feed(destination, range(2, 3), data[2 * MIB :])
    spans = destination.finish()
    holding = Holding(record_of("n", manifest), "replica", destination.path, spans)
    assert await held.holdings.add(holding, manifest) is replica
    assert (replica.state, held.read(manifest)) == ("complete", data)
    assert not held.holdings.drop_partial(replica)
    assert not await held.holdings.remove(holding)


async def test_a_partial_replica_is_dropped(held: Held, tmp_path: Path) -> None:
    manifest = manifest_of({"": content(2 * MIB)}, MIB)
    destination = FileDestination(tmp_path / "dest", manifest, "n")
    replica = await held.holdings.serve_partial(destination)
    with replica.listen() as listener:
        assert held.holdings.drop_partial(replica)
        assert listener.news.get_nowait() is None
    assert not held.holdings.drop_partial(replica)
    assert held.holdings.replicas == {}
    destination.abort()


async def test_a_second_get_of_the_same_object_finishes_first(held: Held, tmp_path: Path) -> None:
    data = content(2 * MIB)
    manifest = manifest_of({"": data}, MIB)
    slow = FileDestination(tmp_path / "slow", manifest, "n")
    quick = FileDestination(tmp_path / "quick", manifest, "n")
    served = await held.holdings.serve_partial(slow)
    unserved = await held.holdings.serve_partial(quick)
    assert unserved.address == 0
    with served.listen() as listener:
        feed(quick, range(2), data)
        holding = Holding(record_of("n", manifest), "replica", quick.path, quick.finish())
        assert await held.holdings.add(holding, manifest) is served
        news = await asyncio.wait_for(listener.news.get(), 30)
        assert news == (range(2),)
    assert held.read(manifest) == data
    assert not held.holdings.drop_partial(served)
    assert held.read(manifest) == data
    slow.abort()


async def test_memory_is_held_too(held: Held) -> None:
    data = content(MIB + 3)
    manifest = manifest_of({"": data}, MIB)
    holding = Holding(record_of("m", manifest), "gold", None, (), (memoryview(data),))
    await held.holdings.add(holding, manifest)
    assert held.read(manifest) == data
    assert list(held.catalog.load()) == []
    assert not await held.holdings.remove(holding)


# The event loop turns meanwhile


class Blocking:
    """Makes a call block until the event loop has turned a few times; one made on the loop's own thread fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.calls = 0
        self._loop = asyncio.get_running_loop()
        self._call = getattr(owner, name)
        monkeypatch.setattr(owner, name, self)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        assert threading.current_thread() is not threading.main_thread(), "it holds up the event loop"
        self.calls += 1
        asyncio.run_coroutine_threadsafe(self._turn(), self._loop).result(60)
        return self._call(*arguments, **options)

    async def _turn(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)


async def test_the_loop_turns_while_the_catalog_is_written_and_the_engine_lets_go(
    held: Held, root: Path, engine: SegmentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D15: with 200,000 files each of these takes as long as a peer waits for an answer, or longer."""
    change = Blocking(monkeypatch, held.catalog, "change")
    replaced, unregistered = (Blocking(monkeypatch, engine, name) for name in ("replace", "unregister"))
    first, manifest = scanned(root)
    await held.holdings.add(first, manifest)
    again, _ = scanned(root)
    await held.holdings.add(again, manifest)
    await held.holdings.add(*scanned(root, "other name"))
    await held.holdings.remove(again)
    await held.holdings.give_up(held.holdings.named("other name")[0])
    assert (change.calls, replaced.calls, unregistered.calls) == (5, 2, 1)
    assert held.holdings.replicas == {}


async def test_the_loop_turns_while_a_partial_replica_is_made_and_let_go(
    held: Held, tmp_path: Path, engine: SegmentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D15: as above, for what a get serves."""
    manifest = manifest_of({"": content(2 * MIB)}, MIB)
    destination = FileDestination(tmp_path / "dest", manifest, "n")
    made, unregistered = (
        Blocking(monkeypatch, destination, "partial_buffer"),
        Blocking(monkeypatch, engine, "unregister"),
    )
    replica = await held.holdings.serve_partial(destination)
    assert held.holdings.drop_partial(replica)
    await held.holdings.catch_up()
    assert (made.calls, unregistered.calls) == (1, 1)
    destination.abort()


async def test_the_loop_turns_while_a_restart_looks_at_everything(
    held: Held, root: Path, engine: SegmentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D15: as above, with a catalog that is full of what is not there any more."""
    (root.parent / "second").write_bytes(b"second")
    await held.holdings.add(*scanned(root))
    await held.holdings.add(*scanned(root.parent / "second", "s"))
    (root / "a").write_bytes(b"changed")
    os.utime(root.parent / "second", ns=(1, 1))
    change, load = Blocking(monkeypatch, held.catalog, "change"), Blocking(monkeypatch, held.catalog, "load")
    again = Holdings(engine, held.catalog, held.on_changed)
    assert [lost.name for lost in await again.restore()] == ["n"]
    assert (change.calls, load.calls) == (2, 1)


async def test_a_restart_with_a_catalog_that_is_full_serves_what_is_there(
    held: Held, root: Path, engine: SegmentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root.parent / "second").write_bytes(b"second")
    await held.holdings.add(*scanned(root))
    await held.holdings.add(*scanned(root.parent / "second", "s"))
    (root / "a").write_bytes(b"changed")
    full = Full(held.catalog, monkeypatch)
    again = Holdings(engine, held.catalog, held.on_changed)
    assert [lost.name for lost in await again.restore()] == ["n"]
    assert [h.name for h in again] == ["s"]
    full.make_room()
    await again._forget_again()
    assert [h.name for h, _ in held.catalog.load()] == ["s"]


async def test_changes_follow_one_another_however_long_each_takes(
    held: Held, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D15: what is asked for first is done first, in the catalog as in memory."""
    Blocking(monkeypatch, held.catalog, "change")
    holding, manifest = scanned(root)
    await asyncio.gather(
        held.holdings.add(holding, manifest), held.holdings.remove(holding), held.holdings.add(holding, manifest)
    )
    assert [h.name for h, _ in held.catalog.load()] == [h.name for h in held.holdings] == ["n"]
    await asyncio.gather(held.holdings.give_up(holding), held.holdings.remove(holding))
    assert [h.name for h, _ in held.catalog.load()] == [h.name for h in held.holdings] == []


async def test_a_change_that_is_cancelled_is_made_all_the_same(
    held: Held, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding, manifest = scanned(root)
    change, begun, cancelled = held.catalog.change, threading.Event(), threading.Event()

    def slow_change(*arguments: Any) -> None:
        begun.set()
        assert cancelled.wait(60)
        change(*arguments)

    monkeypatch.setattr(held.catalog, "change", slow_change)
    adding = asyncio.create_task(held.holdings.add(holding, manifest))
    await asyncio.to_thread(begun.wait, 60)
    adding.cancel()
    await asyncio.sleep(0)
    cancelled.set()
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert [h.name for h, _ in held.catalog.load()] == [h.name for h in held.holdings] == ["n"]
    assert held.read(manifest) == WHOLE


# What of an object is here already


class Collect:
    """A sink of three bytes at a time."""

    def __init__(self) -> None:
        self.data = b""
        self._room = bytearray(3)

    def buffer(self, remaining: int) -> memoryview:
        return memoryview(self._room)[: min(3, remaining)]

    def filled(self, count: int) -> None:
        self.data += self._room[:count]


async def test_equal_chunks_are_found_in_any_holding(held: Held, root: Path, tmp_path: Path) -> None:
    await held.holdings.add(*scanned(root))
    newer = manifest_of({"a": FILES["a"], "new": content(MIB, 7), "renamed": FILES["b/c"]}, MIB)
    local = LocalChunks(held.holdings, newer)
    assert local
    assert [local.has(c) for c in newer.all_chunks()] == [True, True, False, True]
    for chunk in newer.all_chunks():
        if local.has(chunk):
            sink = Collect() if chunk.length < MIB else None
            if sink:
                local.read(chunk, sink)
                assert sink.data == (FILES["a"][MIB:] if chunk.number == 1 else FILES["b/c"])


async def test_other_hashes_and_partial_replicas(held: Held, root: Path, tmp_path: Path) -> None:
    tree = scan(root)
    other = hash_tree(tree, hash_name="blake3")
    await held.holdings.add(Holding(record_of("n", other), "gold", root, tree.files), other)
    assert not LocalChunks(held.holdings, hash_tree(tree, hash_name="xxh3_128"))
    data = content(2 * MIB, 5)
    partial = manifest_of({"": data}, MIB)
    destination = FileDestination(tmp_path / "dest", partial, "n")
    await held.holdings.serve_partial(destination)
    feed(destination, range(1, 2), data[MIB:])
    assert not LocalChunks(held.holdings, partial), "a get does not copy from itself"
    newer = manifest_of({"x": data, "y": b"1"}, MIB)
    assert [LocalChunks(held.holdings, newer).has(c) for c in newer.all_chunks()] == [False, True, False]
    destination.abort()


async def test_reuse_of_what_is_gone(held: Held, root: Path) -> None:
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    local = LocalChunks(held.holdings, manifest)
    await held.holdings.remove(holding)
    with pytest.raises(module.SourceChanged):
        local.read(manifest.chunk(0), Collect())
