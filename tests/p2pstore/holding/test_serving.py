"""What a node holds it serves, from whichever place still has it, until the last is gone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2pstore.holding.catalog import Holding
from p2pstore.pull.file_destination import FileDestination
from tests.p2pstore.holding.held import FILES, WHOLE, Blocking, Held, held, root, scanned
from tests.p2pstore.pull.destinations import feed
from tests.p2pstore.samples import MIB, content, manifest_of, record_of, write_tree

__all__ = ["held", "root"]


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


async def test_a_partial_replica_becomes_whole(held: Held, tmp_path: Path) -> None:
    manifest = manifest_of({"": content(3 * MIB)}, MIB)
    destination = FileDestination(tmp_path / "dest", manifest, "n")
    replica = await held.holdings.serve_partial(destination)
    data = content(3 * MIB)
    assert replica.state == "partial"
    feed(destination, range(1, 2), data[MIB : 2 * MIB])
    room = memoryview(bytearray(MIB))
    assert held.holdings.serving.read(manifest.digest, MIB, room)
    assert room == data[MIB : 2 * MIB]
    assert not held.holdings.serving.read(manifest.digest, 0, room)
    assert not held.holdings.serving.read(manifest.digest, MIB, memoryview(bytearray(MIB + 1)))
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
        assert await listener.hear(30) == [None]
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
        assert await listener.hear(30) == [(range(2),)]
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


async def test_the_loop_turns_while_a_partial_replica_is_made_and_let_go(
    held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many files each of these takes as long as a peer waits for an answer, or longer."""
    manifest = manifest_of({"": content(2 * MIB)}, MIB)
    destination = FileDestination(tmp_path / "dest", manifest, "n")
    made, unregistered = (
        Blocking(monkeypatch, destination, "partial_buffer"),
        Blocking(monkeypatch, held.engine, "unregister"),
    )
    replica = await held.holdings.serve_partial(destination)
    assert held.holdings.drop_partial(replica)
    await held.holdings.catch_up()
    assert (made.calls, unregistered.calls) == (1, 1)
    destination.abort()
