"""Nodes in one process: what one registers others get, and whatever goes wrong leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from p2pstore.cluster import records
from p2pstore.errors import (
    BadName,
    DestinationBusy,
    DestinationExists,
    NodeNotFound,
    ObjectExists,
    ObjectNotFound,
    PathNotFound,
    PeerUnreachable,
    StorageError,
    TransportUnavailable,
    UsageError,
)
from p2pstore.metadata.memory import MemoryStore
from p2pstore.node import Node
from p2pstore.node_options import NodeOptions
from p2pstore.pull import discovery
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.workplace import Workplace
from tests.p2pstore.nodes import FILES, WAIT, Start, get, leftovers, register, root, start
from tests.p2pstore.samples import MIB, content, read_tree, write_tree

__all__ = ["root", "start"]


@pytest.mark.parametrize("force", [False, True])
async def test_devices_and_pipes_are_no_destinations(start: Start, root: Path, tmp_path: Path, force: bool) -> None:
    a = await start("a")
    await register(a, root)
    os.mkfifo(tmp_path / "pipe")
    for dest in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(UsageError, match="a device, a pipe or a socket"):
            await get(a, dest, force=force)
    assert leftovers(tmp_path) == set()


async def test_register_and_get(start: Start, root: Path, tmp_path: Path) -> None:
    a, b, c = [await start(name) for name in "abc"]
    made = await register(a, root)
    assert (made["files"], made["size"], made["chunks"]) == (4, 4 * MIB + 3, 6)
    result = await get(b, tmp_path / "b")
    assert read_tree(tmp_path / "b") == FILES
    assert (tmp_path / "b" / "none").is_dir()
    assert (result.bytes_pulled, result.bytes_reused, result.peers) == (4 * MIB + 3, 0, {"a": 4 * MIB + 3})
    assert result.transport == "tcp"
    third = await get(c, tmp_path / "c")
    assert sum(third.peers.values()) == third.bytes_pulled == result.size
    info = await a.info("n")
    assert [(r["node"], r["state"], r["role"], r["chunks"]) for r in info["replicas"]] == [
        ("a", "complete", "gold", 6),
        ("b", "complete", "replica", 6),
        ("c", "complete", "replica", 6),
    ]


async def test_a_peer_may_be_named_by_its_host(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("host2-0f0f"), await start("b")
    await register(a, root)
    assert (await get(b, tmp_path / "b", peers=("host2",))).peers.keys() == {a.name}
    with pytest.raises(NodeNotFound, match="no live node is named 'host3'"):
        await get(b, tmp_path / "c", peers=("host3",))


async def test_two_get_at_once_and_the_origin_dies(start: Start, root: Path, tmp_path: Path) -> None:
    a, b, c, d = [await start(name) for name in "abcd"]
    await register(a, root)
    await asyncio.gather(get(b, tmp_path / "b"), get(c, tmp_path / "c"))
    await a.close()
    await get(d, tmp_path / "d")
    assert read_tree(tmp_path / "d") == read_tree(tmp_path / "c") == FILES


async def test_what_crosses_between_zones(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are on one host, which would be near whatever its zone: they are taken for others here."""
    monkeypatch.setattr(
        discovery,
        "distance",
        lambda mine, other: records.distance(replace(mine, host_id=""), replace(other, host_id="")),
    )
    write_tree(tmp_path / "tree", {"model": content(16 * MIB)}, ())
    seed = await start("seed", zone="a", upload_limit=2 * MIB)
    await register(seed, tmp_path / "tree", chunk_size=MIB)
    first, *others = [await start(name, zone="b") for name in ("b1", "b2", "b3")]
    getting = asyncio.create_task(get(first, tmp_path / "b1", transport="tcp"))
    deadline = time.monotonic() + WAIT
    while not first.parts.holdings.replicas:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    results = await asyncio.gather(*(get(n, tmp_path / n.name, transport="tcp") for n in others))
    crossed = [result.peers.get("seed", 0) for result in [await getting, *results]]
    assert 16 * MIB <= sum(crossed) <= 24 * MIB, "once, and what each asked for before it knew of the others"
    assert {c.share for n in (first, *others) for r in n.parts.holdings.replicas.values() for c in r.claimed}
    assert all(read_tree(tmp_path / n.name) == read_tree(tmp_path / "tree") for n in (first, *others))


async def test_an_empty_object(start: Start, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    (tmp_path / "empty").touch()
    (tmp_path / "nothing").mkdir()
    for name in ("empty", "nothing"):
        await register(a, tmp_path / name, name)
        assert (await get(b, tmp_path / f"got {name}", name)).bytes_pulled == 0
    assert (tmp_path / "got empty").read_bytes() == b""
    assert list((tmp_path / "got nothing").iterdir()) == []


async def test_what_is_there_is_recognised_and_what_is_not_is_refused(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root)
    dest = tmp_path / "dest"
    write_tree(dest, FILES, ("none",))
    again = await get(b, dest)
    assert (again.bytes_pulled, again.bytes_reused, again.seeding) == (0, again.size, True)
    (dest / "z").write_bytes(b"mine")
    with pytest.raises(DestinationExists):
        await get(b, dest)
    assert (dest / "z").read_bytes() == b"mine"
    await get(b, dest, force=True)
    assert read_tree(dest) == FILES
    assert leftovers(tmp_path) == set()


async def test_a_newer_version_reuses_the_older(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root)
    await get(b, tmp_path / "v1")
    (root / "new").write_bytes(content(10, 9))
    with pytest.raises(ObjectExists):
        await register(a, root)
    await register(a, root, force=True)
    result = await get(b, tmp_path / "v2")
    assert (result.bytes_pulled, result.bytes_reused) == (10, 4 * MIB + 3)
    assert read_tree(tmp_path / "v2") == {**FILES, "new": content(10, 9)}


async def test_dry_run_writes_nothing(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root)
    result = await get(b, tmp_path / "dest", dry_run=True)
    assert (result.dry_run, result.bytes_pulled) == (True, 4 * MIB + 3)
    assert not (tmp_path / "dest").exists()
    assert leftovers(tmp_path) == set()


async def test_without_seeding_nothing_is_held(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root)
    assert not (await get(b, tmp_path / "dest", seed=False)).seeding
    assert len(b.holdings) == 0
    assert set(await a.registry.replicas((await a.info("n"))["manifest"])) == {"a"}


async def test_by_peer_alone(start: Start, root: Path, tmp_path: Path) -> None:
    a = await start("a")
    await register(a, root)
    stranger = await Node.start(NodeOptions("s"), MemoryStore())
    try:
        with pytest.raises(ObjectNotFound):
            await get(stranger, tmp_path / "dest")
        result = await get(stranger, tmp_path / "dest", peers=("127.0.0.1:1", a.record.control))
        assert result.peers == {"a": result.size}
        assert read_tree(tmp_path / "dest") == FILES
        with pytest.raises(PeerUnreachable):
            await get(stranger, tmp_path / "other", "o", peers=("127.0.0.1:1",))
    finally:
        await stranger.close()


async def test_errors_of_a_get(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root)
    with pytest.raises(ObjectNotFound):
        await get(b, tmp_path / "x", "none")
    with pytest.raises(BadName):
        await get(b, tmp_path / "x", "../x")
    with pytest.raises(PathNotFound):
        await get(b, tmp_path / "none" / "x")
    with pytest.raises(StorageError):
        await get(b, tmp_path / ("x" * 256))


async def test_errors_of_a_register(start: Start, root: Path, tmp_path: Path) -> None:
    a = await start("a")
    for name in ("../x", "", "a b", "/x", "x" * 256):
        with pytest.raises(BadName):
            await register(a, root, name)
    with pytest.raises(PathNotFound):
        await register(a, tmp_path / "none")
    assert len(a.holdings) == 0


async def test_after_a_restart_it_serves_again(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root)
    (tmp_path / "gone").write_bytes(b"x")
    await register(a, tmp_path / "gone", "gone")
    await a.close()
    (tmp_path / "gone").unlink()
    os.utime(root / "z", ns=(1, 1))
    again = await start("a")
    assert [o["name"] for o in (await b.listing("", limit=0, after=""))["objects"]] == ["n"]
    await get(b, tmp_path / "b")
    assert read_tree(tmp_path / "b") == FILES
    assert len(again.holdings) == 1


async def test_the_same_object_in_two_places_is_said_again_after_a_loss(
    start: Start, root: Path, tmp_path: Path
) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root)
    for dest in ("one", "two"):
        await get(b, tmp_path / dest)
    digest = (await a.info("n"))["manifest"]
    await b.registry.store.revoke(b.registry.lease)
    assert set(await a.registry.replicas(digest)) == {"a"}
    b.membership.lost()

    async def back() -> None:
        while set(await a.registry.replicas(digest)) != {"a", "b"}:  # noqa: ASYNC110 - the store is another's
            await asyncio.sleep(0.01)

    await asyncio.wait_for(back(), WAIT)


async def test_a_get_outlives_its_lease(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root)
    await b.registry.store.revoke(b.registry.lease)
    await get(b, tmp_path / "b")
    assert set(await a.registry.replicas((await a.info("n"))["manifest"])) == {"a", "b"}


async def test_the_same_bytes_with_other_permissions_are_the_same_object(
    start: Start, root: Path, tmp_path: Path
) -> None:
    """What is saved as 0600 is downloaded as 0644."""
    a, b = await start("a"), await start("b")
    known = await register(a, root)
    write_tree(tmp_path / "again", FILES, ("none",))
    for path in (tmp_path / "again").rglob("*"):
        if path.is_file():
            path.chmod(0o600)
    assert (await register(b, tmp_path / "again"))["manifest"] == known["manifest"]
    assert set(await a.registry.replicas(known["manifest"])) == {"a", "b"}
    result = await b.register_many([(tmp_path / "again", "n")], hash_name="xxh3_128")
    assert (len(result["objects"]), result["failed"]) == (1, [])


async def test_of_other_content_it_is_said_how_much_differs(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root)
    write_tree(tmp_path / "again", {**FILES, "z": content(MIB, 4)}, ("none",))
    for node in (a, b):
        with pytest.raises(ObjectExists, match="exists: 1 of 4 files and 1 of 6 chunks differ"):
            await register(node, tmp_path / "again")
    write_tree(tmp_path / "longer", {**FILES, "z": content(MIB + 1, 4)}, ("none",))
    with pytest.raises(ObjectExists, match="exists: it has 4194307 bytes, and this 4194308"):
        await register(b, tmp_path / "longer")
    await a.registry.join(replace(a.record, control="127.0.0.1:1"))
    with pytest.raises(ObjectExists, match=r"exists$"):
        await register(b, tmp_path / "again")


async def test_memory_registered_again_lets_the_old_go(start: Start) -> None:
    a, b = await start("a"), await start("b")
    versions = [bytearray(content(MIB, n)) for n in range(3)]
    for version in versions:
        await a.register_memory("w", version, hash_name="xxh3_128", chunk_size=0, force=True)
    assert len(a.holdings) == len(a.holdings.replicas) == 1
    for old in versions[:2]:
        old.append(1)  # nobody holds on to it
    room = bytearray(MIB)
    await b.get_into("w", room, transport="auto", peers=())
    assert room == versions[2]
    prefix = records.REPLICAS
    assert len((await a.registry.store.scan(prefix)).items) == 1


async def test_two_memory_objects_do_not_displace_each_other(start: Start) -> None:
    a = await start("a")
    for name in ("w", "v"):
        await a.register_memory(
            name, content(100, len(name) + ord(name)), hash_name="xxh3_128", chunk_size=0, force=False
        )
    assert {h.name for h in a.holdings} == {"w", "v"}


async def test_a_cancelled_get_goes_on_later(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root)
    work = asyncio.ensure_future(get(b, tmp_path / "dest"))
    await asyncio.sleep(0)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await get(b, tmp_path / "dest")
    assert read_tree(tmp_path / "dest") == FILES


@pytest.mark.parametrize("step", ["_lay_out", "recheck", "finish"])
async def test_a_get_that_is_cancelled_in_a_thread_lets_go_of_its_destination(
    start: Start, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root)
    entered, go_on = threading.Event(), threading.Event()
    real = getattr(FileDestination, step)

    def slowly(self: FileDestination, *arguments: Any) -> Any:
        entered.set()
        assert go_on.wait(WAIT)
        return real(self, *arguments)

    monkeypatch.setattr(FileDestination, step, slowly)
    work = asyncio.ensure_future(get(b, tmp_path / "dest"))
    assert await asyncio.to_thread(entered.wait, WAIT)
    work.cancel()
    await asyncio.sleep(0)
    with pytest.raises(DestinationBusy):  # the thread is still at work on it
        Workplace(tmp_path, tmp_path / "dest", "m", "n")
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await work
    monkeypatch.undo()
    await get(b, tmp_path / "dest")
    assert read_tree(tmp_path / "dest") == FILES


async def test_rdma_alone_is_told_why_it_cannot(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("a", rdma_devices="none"), await start("b", rdma_devices="no-such-device")
    await register(a, root)
    with pytest.raises(TransportUnavailable, match="on this host: this machine has no RDMA device") as caught:
        await get(b, tmp_path / "b", transport="rdma")
    assert caught.value.exit_code == 9
    assert not (tmp_path / "b").exists()
    assert a.status()["rdma"] == b.status()["rdma"] == ""
    assert b.status()["rdma_reason"]


async def test_an_unexpected_error_does_not_end_the_lease_keeper(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was gone for good, the node vanished at the end of its lease, and the status still said "ok"."""
    a, other = await start("a", ttl=2), await start("b")
    failing = asyncio.Event()
    failing.set()
    keep_alive = a.registry.store.keep_alive

    async def sometimes(lease: int) -> int:
        if failing.is_set():
            raise RuntimeError("a bug")
        return await keep_alive(lease)

    async def listed(wanted: bool) -> None:
        while ("a" in await other.registry.nodes(["a"])) is not wanted:  # noqa: ASYNC110 - the store says nothing
            await asyncio.sleep(0.05)

    monkeypatch.setattr(a.registry.store, "keep_alive", sometimes)
    await asyncio.wait_for(listed(False), WAIT)
    assert not a.status()["metadata_ok"]
    failing.clear()
    await asyncio.wait_for(listed(True), WAIT)

    async def fine() -> None:
        while not a.status()["metadata_ok"]:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)

    await asyncio.wait_for(fine(), WAIT)
