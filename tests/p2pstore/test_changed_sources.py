"""What was changed, damaged or taken away under a node is neither served nor believed, and whoever gets it hears why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2pstore.errors import (
    ChunkMismatch,
    HolderGone,
    NoLivePeer,
    ObjectNotFound,
)
from p2pstore.pull import file_sink
from p2pstore.pull.get import GetRequest
from tests.p2pstore.nodes import FILES, WAIT, Start, damage, get, register, root, start
from tests.p2pstore.samples import MIB, read_tree

__all__ = ["root", "start"]


async def test_unregistering_a_name_that_now_is_anothers(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root, "n")
    await register(a, root, "also")
    (tmp_path / "other").write_bytes(b"other")
    await register(b, tmp_path / "other", "n", force=True)
    assert not (await a.unregister("n"))["removed"]
    assert (await b.info("n"))["creator"] == "b"
    assert (await b.info("also"))["creator"] == "a"


async def test_a_source_that_changes_is_withdrawn(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root)
    (root / "z").write_bytes(b"changed")

    async def withdrawn() -> None:
        while (await b.listing("", limit=0, after=""))["objects"]:  # noqa: ASYNC110 - a listing tells nothing itself
            await asyncio.sleep(0.05)

    await asyncio.wait_for(withdrawn(), WAIT)
    with pytest.raises(ObjectNotFound):
        await get(b, tmp_path / "b")


async def test_verify_finds_what_a_disk_did(start: Start, root: Path) -> None:
    a = await start("a")
    await register(a, root)
    assert (await a.verify("n", lambda *_: None))["ok"]
    damage(root / "z", a)
    result = await a.verify(str(root), lambda *_: None)
    assert [(b["file"], b["chunk"], b["reason"]) for b in result["bad"]] == [("z", 5, "its hash differs")]
    assert not result["ok"]
    assert len(a.holdings) == 0


async def test_a_corrupt_source_is_not_believed(start: Start, root: Path, tmp_path: Path) -> None:
    """Bytes that changed on the disk of one holder under the same stamp: another holder's are taken."""
    a, b, c = [await start(name) for name in "abc"]
    await register(a, root)
    await get(b, tmp_path / "b")
    damage(root / "z", a)
    await get(c, tmp_path / "c")
    assert read_tree(tmp_path / "c") == FILES


async def test_who_gets_what_changes_meanwhile_hears_why(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root)
    a.upload_limit.set(MIB // 4)
    told: list[dict[str, Any]] = []
    getting = asyncio.create_task(b.get(GetRequest("n", tmp_path / "b", transport="tcp"), told.append))
    while not any(replica.have.count for replica in b.holdings.replicas.values()):  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    (root / "z").write_bytes(b"new")
    with pytest.raises(NoLivePeer, match="has withdrawn the object: z: its size went from 1048576 to 3 bytes"):
        await asyncio.wait_for(getting, WAIT)
    assert any("has withdrawn the object" in event.get("text", "") for event in told)
    assert str(root) not in str(told), "where it lies there concerns nobody here"


async def test_an_old_copy_of_a_name_that_stands_for_something_else(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root)
    (tmp_path / "other").write_bytes(b"other")
    await register(b, tmp_path / "other", force=True)
    verified = await a.verify("n", lambda *_: None)
    assert (verified["ok"], verified["replaced_by"]) == (True, "b")
    gone = await a.unregister("n")
    assert (gone["removed"], gone["replaced_by"]) == (False, "b")
    assert (await b.verify("n", lambda *_: None))["replaced_by"] == ""
    assert (await b.unregister("n"))["replaced_by"] == ""


async def test_a_name_whose_holder_died_is_no_unknown_one(start: Start, root: Path, tmp_path: Path) -> None:
    """A script that tries again when nobody who is alive has it must not take it for a typing error."""
    a, b = await start("a"), await start("b")
    await register(a, root)
    await a.registry.store.revoke(a.registry.lease)
    with pytest.raises(NoLivePeer):
        await get(b, tmp_path / "b")
    for _ in range(2):
        with pytest.raises(HolderGone, match="a, which registered it") as caught:
            await b.info("n")
        assert caught.value.exit_code == 5
        with pytest.raises(HolderGone):
            await get(b, tmp_path / "b")
    a.membership.lost()
    while await b.registry.find("n") is None:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)
    await get(b, tmp_path / "b")


async def test_a_getter_that_leaves_last_takes_the_name_along(start: Start, root: Path, tmp_path: Path) -> None:
    a, b, c = [await start(name) for name in "abc"]
    await register(a, root)
    a.upload_limit.set(MIB // 4)
    getting = asyncio.create_task(b.get(GetRequest("n", tmp_path / "b", transport="tcp"), lambda _: None))
    while not any(replica.have.count for replica in b.holdings.replicas.values()):  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    await a.unregister("n")
    assert await c.registry.find("n") is not None
    getting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await getting
    while await c.registry.find("n") is not None:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)


async def test_the_owner_hears_of_wrong_bytes_and_withdraws_them(start: Start, root: Path, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    await register(a, root)
    damage(root / "z", a)
    told: list[dict[str, Any]] = []
    with pytest.raises(ChunkMismatch):
        await asyncio.wait_for(b.get(GetRequest("n", tmp_path / "b", transport="tcp"), told.append), WAIT)
    assert len(a.holdings) == 0
    assert any("a has read its chunk 5 again: it is wrong there, too" in event.get("text", "") for event in told)


async def test_the_owner_of_right_bytes_goes_on_serving_them(
    start: Start, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something on the way, or the getter's own memory, changes what comes."""
    a, b = await start("a"), await start("b")
    await register(a, root)
    told: list[dict[str, Any]] = []
    with monkeypatch.context() as patch:
        patch.setattr(file_sink.FileSink, "_store", spoiled(file_sink.FileSink._store))
        with pytest.raises(ChunkMismatch):
            await asyncio.wait_for(b.get(GetRequest("n", tmp_path / "b", transport="tcp"), told.append), WAIT)
    assert len(a.holdings) == 1
    assert any("it is right there" in event.get("text", "") for event in told)
    await get(b, tmp_path / "b", transport="tcp")
    assert read_tree(tmp_path / "b") == FILES


def spoiled(store: Callable[..., None]) -> Callable[..., None]:
    """Stores other bytes than came."""
    return lambda sink, data: store(sink, memoryview(bytes(byte ^ 1 for byte in data[:1]) + bytes(data[1:])))
