"""What is doubted is read again: what is right goes on being served, what is wrong does not, and a liar costs little."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from engine.serving.segment_server import SegmentServer
from p2pstore.holding import checker as module
from p2pstore.holding.catalog import Holding
from p2pstore.holding.checker import AGAIN_SECONDS, CHUNKS_A_MINUTE, MAX_REMEMBERED, Checker, ComplaintLimiter
from p2pstore.holding.replica import Replica
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.source import scan
from p2pstore.objects.tree_hash import hash_tree
from tests.p2pstore.holding.held import FILES, Held
from tests.p2pstore.samples import MIB, manifest_of, record_of, write_tree

WAIT = 60.0
WHOLE = b"".join(FILES.values())


@pytest.fixture
def engine() -> Iterator[SegmentServer]:
    with SegmentServer() as made:
        yield made


class World:
    """A tree that is held, with a checker that gives up what is wrong."""

    def __init__(self, held: Held, root: Path, manifest: Manifest, holding: Holding) -> None:
        self.held = held
        self.root = root
        self.manifest = manifest
        self.holding = holding
        self.given_up: list[Holding] = []
        self.dropped: list[Replica] = []
        self.checker = Checker(held.holdings, self.give_up, self.dropped.append)
        held.on_touched = self.checker.touched

    async def give_up(self, holding: Holding, reason: str) -> None:
        assert reason
        await self.held.holdings.give_up(holding, reason)
        self.given_up.append(holding)

    @property
    def now(self) -> Holding:
        """What is held."""
        (holding,) = self.held.holdings
        return holding

    async def until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not condition():
                self.held.holdings.suspects._there.set()
                await asyncio.sleep(0.01)

        await asyncio.wait_for(wait(), WAIT)


@pytest.fixture
async def world(engine: SegmentServer, tmp_path: Path) -> AsyncIterator[World]:
    root = tmp_path / "tree"
    write_tree(root, FILES)
    tree = scan(root)
    manifest = hash_tree(tree, hash_name="xxh3_128", chunk_size=MIB)
    held = Held(engine, tmp_path / "catalog.db")
    holding = Holding(record_of("n", manifest), "gold", root, tree.files)
    await held.holdings.add(holding, manifest)
    made = World(held, root, manifest, holding)
    tasks = [asyncio.create_task(work()) for work in (held.watcher.watch, made.checker.run)]
    yield made
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    held.catalog.close()


def write_unseen(path: Path, at: int = 50) -> None:
    """Change a byte, and put size and time back."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    with open(path, "r+b") as stream:
        stream.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def ctime(holding: Holding, name: str) -> int:
    (stamp,) = (span.stamp for span in holding.spans if span.path.endswith(name))
    assert stamp is not None
    return stamp.ctime_ns


async def test_a_change_whose_time_was_put_back_is_found(world: World) -> None:
    write_unseen(world.root / "b/c")
    await world.until(lambda: world.given_up == [world.holding])
    assert world.manifest.digest not in world.held.holdings.replicas
    assert world.held.changed == []


async def test_a_new_mode_is_no_change(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    before = ctime(world.holding, "b/c")
    (world.root / "b/c").chmod(0o600)
    await world.until(lambda: ctime(world.now, "b/c") != before)
    assert world.held.read(world.manifest) == WHOLE
    (again,) = [holding for holding, _ in world.held.catalog.load()]
    assert ctime(again, "b/c") == ctime(world.now, "b/c") != before
    kept = world.now
    for _ in range(20):
        world.held.holdings.suspects._there.set()
        await asyncio.sleep(0.01)
    assert world.now is kept, "it is read once"
    assert world.given_up == []


async def test_what_was_touched_and_cannot_be_read_now_is_looked_at_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = asyncio.Event()
    loop = asyncio.get_running_loop()
    chunk_fault = module.chunk_fault

    def too_many(*_: object) -> str:
        loop.call_soon_threadsafe(looked.set)
        return "too many open files"

    monkeypatch.setattr(module, "chunk_fault", too_many)
    before = ctime(world.holding, "b/c")
    (world.root / "b/c").chmod(0o600)
    await world.until(looked.is_set)
    assert world.given_up == []
    monkeypatch.setattr(module, "chunk_fault", chunk_fault)
    await world.until(lambda: ctime(world.now, "b/c") != before)


async def test_a_complaint_of_wrong_bytes_withdraws(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.held.on_touched = lambda _: None  # as through a mapping of tmpfs: no time tells of it
    write_unseen(world.root / "a")
    assert await world.checker.complaint(world.manifest.digest, 0)
    assert world.given_up == [world.holding]
    assert await world.checker.complaint(world.manifest.digest, 0) is None


async def test_a_false_complaint_changes_nothing_and_is_not_heard_again_soon(world: World) -> None:
    assert await world.checker.complaint(world.manifest.digest, 0) is False
    assert await world.checker.complaint(world.manifest.digest, 0) is None
    assert await world.checker.complaint("0" * 64, 0) is None
    assert world.given_up == []
    assert world.held.read(world.manifest) == WHOLE


async def test_memory_is_read_again_too(engine: SegmentServer, world: World) -> None:
    data = bytearray(b"x" * 100)
    manifest = manifest_of({"": bytes(data)}, MIB)
    await world.held.holdings.add(Holding(record_of("m", manifest), "gold", None, (), (memoryview(data),)), manifest)
    data[3] = 0
    assert await world.checker.complaint(manifest.digest, 0)
    assert [holding.name for holding in world.given_up] == ["m"]


async def test_a_part_of_a_get_is_dropped(world: World) -> None:
    manifest = manifest_of({"": b"y" * 100}, MIB)
    replica = Replica(manifest, Bitmap(1, full=True), "replica", asyncio.get_running_loop())
    replica.address = world.held.holdings.replicas[world.manifest.digest].address
    world.held.holdings.replicas[manifest.digest] = replica
    assert await world.checker.complaint(manifest.digest, 0)
    assert world.dropped == [replica]


def test_a_liar_makes_nobody_read_for_ever() -> None:
    complaints = ComplaintLimiter()
    taken = sum(complaints.take("d", chunk, now / 100) for now, chunk in enumerate(range(10_000)))
    assert taken <= 3 * CHUNKS_A_MINUTE
    assert not complaints.take("d", 0, 59.0)
    assert complaints.take("d", 0, 1000.0 + AGAIN_SECONDS)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNKS_A_MINUTE", 10 * MAX_REMEMBERED)
    complaints = ComplaintLimiter()
    assert sum(complaints.take("d", chunk, 1.0) for chunk in range(2 * MAX_REMEMBERED)) == MAX_REMEMBERED
