"""What a node holds is what its catalog says, whatever fails or is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from engine.errors import StorageError
from p2pstore.holding.holdings import Holdings
from tests.p2pstore.holding.held import FILES, WHOLE, Blocking, Full, Held, held, root, scanned
from tests.p2pstore.samples import MIB, content, write_tree

__all__ = ["held", "root"]


async def test_add_and_remove(held: Held, root: Path) -> None:
    holding, manifest = scanned(root)
    replica = await held.holdings.add(holding, manifest)
    assert held.read(manifest) == WHOLE
    room = bytearray(100)
    held.engine.read(held.engine.address_of_self(), replica.address + MIB + 9, memoryview(room))
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


async def test_restore(held: Held, root: Path, tmp_path: Path) -> None:
    holding, manifest = scanned(root)
    await held.holdings.add(holding, manifest)
    for name in ("touched", "changed", "gone"):
        write_tree(tmp_path / name, {"": content(50, len(name))})
        await held.holdings.add(*scanned(tmp_path / name, name))
    os.utime(tmp_path / "touched", ns=(5, 5))
    (tmp_path / "changed").write_bytes(b"other")
    (tmp_path / "gone").unlink()
    again = Holdings(held.engine, held.catalog)
    lost = await again.restore()
    assert {h.name for h in lost} == {"changed", "gone"}
    assert {h.name for h in again} == {"n", "touched"}
    room = bytearray(50)
    assert again.serving.read(again.named("touched")[0].digest, 0, memoryview(room))
    assert {h.name for h, _ in held.catalog.load()} == {"n", "touched"}
    assert await Holdings(held.engine, held.catalog).restore() == []


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


async def test_the_loop_turns_while_the_catalog_is_written_and_the_engine_lets_go(
    held: Held, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 200,000 files each of these takes as long as a peer waits for an answer, or longer."""
    change = Blocking(monkeypatch, held.catalog, "change")
    replaced, unregistered = (Blocking(monkeypatch, held.engine, name) for name in ("replace", "unregister"))
    first, manifest = scanned(root)
    await held.holdings.add(first, manifest)
    again, _ = scanned(root)
    await held.holdings.add(again, manifest)
    await held.holdings.add(*scanned(root, "other name"))
    await held.holdings.remove(again)
    await held.holdings.give_up(held.holdings.named("other name")[0])
    assert (change.calls, replaced.calls, unregistered.calls) == (5, 2, 1)
    assert held.holdings.replicas == {}


async def test_the_loop_turns_while_a_restart_looks_at_everything(
    held: Held, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, with a catalog that is full of what is not there any more."""
    (root.parent / "second").write_bytes(b"second")
    await held.holdings.add(*scanned(root))
    await held.holdings.add(*scanned(root.parent / "second", "s"))
    (root / "a").write_bytes(b"changed")
    os.utime(root.parent / "second", ns=(1, 1))
    change, load = Blocking(monkeypatch, held.catalog, "change"), Blocking(monkeypatch, held.catalog, "load")
    again = Holdings(held.engine, held.catalog)
    assert [lost.name for lost in await again.restore()] == ["n"]
    assert (change.calls, load.calls) == (2, 1)


async def test_a_restart_with_a_catalog_that_is_full_serves_what_is_there(
    held: Held, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root.parent / "second").write_bytes(b"second")
    await held.holdings.add(*scanned(root))
    await held.holdings.add(*scanned(root.parent / "second", "s"))
    (root / "a").write_bytes(b"changed")
    full = Full(held.catalog, monkeypatch)
    again = Holdings(held.engine, held.catalog)
    assert [lost.name for lost in await again.restore()] == ["n"]
    assert [h.name for h in again] == ["s"]
    full.make_room()
    await again.forget_again()
    assert [h.name for h, _ in held.catalog.load()] == ["s"]


async def test_changes_follow_one_another_however_long_each_takes(
    held: Held, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked for first is done first, in the catalog as in memory."""
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
