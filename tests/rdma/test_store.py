"""The store over RDMA: what arrives, what proves that RDMA carried it, and what happens when it breaks."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import TransportUnavailable
from p2pstore.errors import NoLivePeer
from p2pstore.node import Node
from p2pstore.pull.get import GetRequest, GetResult
from tests.p2pstore.samples import MIB, content, read_tree, write_tree
from tests.rdma.conftest import OURS, THEIRS, Start, packets

FILES = {
    "config.json": b"{}",
    "a/1": content(3 * MIB + 1),
    "empty": b"",
    **{f"s/{n}": content(5000, n) for n in range(9)},
}
TOTAL = sum(map(len, FILES.values()))
WAIT = 120.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_tree(tmp_path / "tree", FILES, ())
    return tmp_path / "tree"


async def register(node: Node, path: Path) -> dict[str, Any]:
    return await node.register(path, "n", hash_name="xxh3_128")


async def get(node: Node, dest: Path, seen: Seen | None = None, **options: Any) -> GetResult:
    return await asyncio.wait_for(node.get(GetRequest("n", dest, **options), seen or Seen()), WAIT)


class Seen:
    """The events of a get."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.begun = asyncio.Event()
        """Set once two verified MiB are there."""

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "note":
            self.notes.append(event["text"])
        if event["event"] == "progress" and event["done"] >= 2 * MIB:
            self.begun.set()


async def test_a_checkpoint_comes_over_rdma(start: Start, root: Path, tmp_path: Path) -> None:
    gold, getter = await start("gold", THEIRS), await start("getter", OURS)
    await register(gold, root)
    before = packets(OURS)
    result = await get(getter, tmp_path / "copy", transport="rdma")
    assert read_tree(tmp_path / "copy") == FILES
    assert (result.transport, result.bytes_pulled, result.peers) == ("rdma", TOTAL, {"gold": TOTAL})
    status = gold.status()
    assert (status["rdma_bytes_granted"], status["bytes_sent"]) == (TOTAL, 0)
    # 4096 bytes of payload a packet: no fewer can have carried it.
    assert packets(OURS) - before >= TOTAL // 4096


async def test_memory_comes_over_rdma_in_place_and_auto_prefers_it(start: Start) -> None:
    gold, getter = await start("gold", THEIRS), await start("getter", OURS)
    data = content(5 * MIB + 3)
    await gold.register_memory("n", data, hash_name="xxh3_128", chunk_size=0, force=False)
    into = bytearray(len(data))
    result = await asyncio.wait_for(getter.get_into("n", into, transport="auto", peers=()), WAIT)
    assert into == data
    assert result["transport"] == "rdma"
    assert gold.status()["bytes_sent"] == 0


async def test_four_getters_at_once(start: Start, tmp_path: Path) -> None:
    data = content(9 * MIB + 5)
    (tmp_path / "object").write_bytes(data)
    gold = await start("gold", THEIRS)
    await register(gold, tmp_path / "object")
    getters = [await start(f"getter{n}", (OURS, THEIRS)[n % 2]) for n in range(4)]
    results = await asyncio.gather(
        *(get(node, tmp_path / f"copy{n}", transport="rdma") for n, node in enumerate(getters))
    )
    for n, result in enumerate(results):
        assert (tmp_path / f"copy{n}").read_bytes() == data
        assert (result.transport, result.bytes_pulled) == ("rdma", len(data))
    assert all(node.status()["bytes_sent"] == 0 for node in (gold, *getters))


@pytest.fixture
def cable() -> Iterator[None]:
    """Mends what a test does to the getter's device."""
    yield
    subprocess.run(["ip", "link", "set", "veth1", "up"], check=True)
    # What the link forgets when it goes down.
    neighbour = ["10.77.0.1", "lladdr", "02:00:00:00:00:01", "dev", "veth1", "nud", "permanent"]
    subprocess.run(["ip", "neigh", "replace", *neighbour], check=True)
    for route in (["10.77.0.0/24"], ["local", "10.77.0.2"]):
        subprocess.run(["ip", "route", "replace", *route, "dev", "veth1", "table", "101"], check=True)


async def test_when_a_device_goes_down_the_rest_comes_over_tcp(start: Start, tmp_path: Path, cable: None) -> None:
    data = content(24 * MIB)
    (tmp_path / "object").write_bytes(data)
    gold, getter = await start("gold", THEIRS), await start("getter", OURS, download_limit=8 * MIB)
    await register(gold, tmp_path / "object")
    seen = Seen()
    work = asyncio.create_task(get(getter, tmp_path / "copy", seen, transport="auto"))
    await seen.begun.wait()
    await asyncio.to_thread(subprocess.run, ["ip", "link", "set", "veth1", "down"], check=True)
    getter.download_limit.set(0)
    result = await work
    assert (tmp_path / "copy").read_bytes() == data
    assert result.transport == "rdma,tcp"
    (note,) = [text for text in seen.notes if "going on over tcp" in text]
    assert OURS in note


async def test_rdma_alone_fails_with_the_reason(start: Start, root: Path, tmp_path: Path) -> None:
    gold, getter = await start("gold", "none"), await start("getter", OURS)
    await register(gold, root)
    with pytest.raises(TransportUnavailable, match="the peer offers no RDMA device") as caught:
        await get(getter, tmp_path / "copy", transport="rdma")
    assert caught.value.exit_code == 9
    assert not (tmp_path / "copy").exists()
    assert (await get(getter, tmp_path / "copy", transport="auto")).transport == "tcp"


async def test_an_object_that_is_withdrawn_in_the_middle(start: Start, tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(content(24 * MIB))
    gold, getter = await start("gold", THEIRS), await start("getter", OURS, download_limit=8 * MIB)
    await register(gold, tmp_path / "object")
    seen = Seen()
    work = asyncio.create_task(get(getter, tmp_path / "copy", seen, transport="rdma"))
    await seen.begun.wait()
    await gold.unregister("n")
    getter.download_limit.set(0)
    with pytest.raises(NoLivePeer):
        await work
    assert not (tmp_path / "copy").exists()
