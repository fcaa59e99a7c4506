"""Copies that come as they are read, from real nodes; and what is left of one when something ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from p2pstore.errors import MooncakeError, StorageError
from p2pstore.hub.copies import Copies, Copy
from p2pstore.node import Node
from p2pstore.objects.manifest import Manifest
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.run import PullWork
from tests.p2pstore.nodes import FILES, Start, get, register, root, start
from tests.p2pstore.samples import MIB, content

__all__ = ["root", "start"]

WAIT = 60.0


async def copy_at(node: Node, name: str = "n") -> Copy:
    record = await node.registry.find(name)
    assert record is not None
    return Copies(node.parts, node.supervisor).of(record, await manifest_of(node, record.manifest))


async def manifest_of(node: Node, digest: str) -> Manifest:
    nodes = await node.registry.nodes(list(await node.registry.replicas(digest)))
    for other in nodes.values():
        return node.holdings.manifest(digest) or await node.parts.client.manifest(other.control, digest)
    raise AssertionError("nobody holds it")


def chunks_of(manifest: Manifest, path: str) -> range:
    number = list(manifest.columns.paths).index(path)
    return range(*manifest.first_chunks[number : number + 2])


async def bring(copy: Copy, chunks: range) -> bytes:
    await copy.want(chunks)
    parts = []
    for number in chunks:
        await asyncio.wait_for(copy.arrival(number), WAIT)
        parts.append(bytes(await copy.read(copy.manifest.chunk(number))))
    return b"".join(parts)


@pytest.fixture
async def pair(start: Start, root: Path) -> tuple[Node, Node]:
    one, other = await start("one"), await start("other")
    await register(one, root)
    return one, other


async def until(look: Callable[[], object]) -> None:
    async def wait() -> None:
        while not look():  # noqa: ASYNC110 - whatever it looks at
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), WAIT)


async def test_one_file_is_brought_and_passed_on_and_no_other(pair: tuple[Node, Node], start: Start) -> None:
    _one, other = pair
    copy = await copy_at(other)
    wanted = chunks_of(copy.manifest, "model 1/é")
    assert await bring(copy, wanted) == FILES["model 1/é"]
    rest = [chunk for chunk in range(copy.manifest.chunks) if chunk not in wanted]
    assert rest
    assert not any(map(copy.there, rest))
    holders = await other.registry.replicas(copy.manifest.digest)
    assert {node: held.state for node, held in holders.items()} == {"one": "complete", "other": "partial"}
    replica = other.holdings.replicas[copy.manifest.digest]
    assert sorted(replica.have) == list(wanted)
    await copy.close()


async def test_when_all_of_it_has_come_it_is_held(pair: tuple[Node, Node]) -> None:
    one, other = pair
    copy = await copy_at(other)
    await asyncio.gather(*(bring(copy, chunks_of(copy.manifest, path)) for path in FILES if FILES[path]))
    await until(lambda: other.holdings.named("n"))
    (holding,) = other.holdings.named("n")
    assert holding.root is not None
    assert (holding.root / "model 1" / "é").read_bytes() == FILES["model 1/é"]
    await one.close()
    assert await bring(copy, range(copy.manifest.chunks)) == b"".join(FILES[path] for path in sorted(FILES))
    await copy.close()


async def test_what_is_wanted_twice_comes_once(pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    copy = await copy_at(pair[1])
    wanted = chunks_of(copy.manifest, "model 1/é")
    windows: list[int] = []
    bring_window = copy._bring

    async def counted(chunks: Sequence[int]) -> None:
        windows.extend(chunks)
        await bring_window(chunks)

    monkeypatch.setattr(copy, "_bring", counted)
    found = await asyncio.gather(*(bring(copy, wanted) for _ in range(4)))
    assert set(found) == {FILES["model 1/é"]}
    assert windows == list(wanted)
    await copy.close()


@pytest.mark.parametrize("several", [False, True], ids=["this node alone", "another gets it, too"])
async def test_sources_deal_to_nodes_and_not_to_windows(
    pair: tuple[Node, Node], start: Start, monkeypatch: pytest.MonkeyPatch, *, several: bool
) -> None:
    """A source that has several who pass on what they get grants them chunk by chunk."""
    _one, other = pair
    another = await copy_at(await start("third")) if several else None
    if another is not None:
        await bring(another, range(1))
    seeding: list[bool] = []
    both = asyncio.Event()
    run = PullWork.run

    async def told(self: PullWork, *arguments: Any, **options: Any) -> None:
        seeding.append(options["seeds"])
        if len(seeding) == 2:
            both.set()
        await asyncio.wait_for(both.wait(), WAIT)
        await run(self, *arguments, **options)

    monkeypatch.setattr(PullWork, "run", told)
    copy = await copy_at(other)
    chunks = chunks_of(copy.manifest, "model 1/é")
    await copy.want(chunks[:1])
    assert await bring(copy, chunks) == FILES["model 1/é"]
    assert sorted(seeding) == [several, True]
    for each in (copy, another):
        if each is not None:
            await each.close()


async def test_it_goes_on_from_what_an_earlier_one_left(pair: tuple[Node, Node]) -> None:
    _, other = pair
    copy = await copy_at(other)
    wanted = chunks_of(copy.manifest, "model 1/é")
    await bring(copy, wanted)
    await copy.close()
    other.parts.publisher.drop_partial(other.holdings.replicas[copy.manifest.digest])
    again = await copy_at(other)
    await again.want([wanted.start, chunks_of(copy.manifest, "z").start])
    assert all(map(again.there, wanted))
    assert await bring(again, chunks_of(copy.manifest, "z")) == FILES["z"]
    await again.close()


async def test_who_holds_it_needs_no_copy(pair: tuple[Node, Node]) -> None:
    one, _ = pair
    copy = await copy_at(one)
    assert all(map(copy.there, range(copy.manifest.chunks)))
    assert await bring(copy, chunks_of(copy.manifest, "z")) == FILES["z"]
    assert not (one.parts.options.state / "kept").exists()  # type: ignore[operator]


async def test_a_get_beside_it_serves_it_too(pair: tuple[Node, Node], tmp_path: Path) -> None:
    _, other = pair
    copy = await copy_at(other)
    await bring(copy, chunks_of(copy.manifest, "z"))
    await get(other, tmp_path / "dest")
    assert await bring(copy, chunks_of(copy.manifest, "model 1/é")) == FILES["model 1/é"]
    await copy.close()


async def test_what_came_once_and_is_held_no_more_is_held_again(pair: tuple[Node, Node]) -> None:
    _one, other = pair
    copy = await copy_at(other)
    await bring(copy, range(copy.manifest.chunks))
    await until(lambda: other.holdings.named("n"))
    await other.unregister("n")
    again = await copy_at(other)
    assert await bring(again, chunks_of(copy.manifest, "z")) == FILES["z"]
    assert other.holdings.named("n")
    await again.close()


async def test_what_others_put_in_its_place_stays(pair: tuple[Node, Node]) -> None:
    _, other = pair
    copy = await copy_at(other)
    await bring(copy, range(copy.manifest.chunks))
    await until(lambda: other.holdings.named("n"))
    (holding,) = other.holdings.named("n")
    assert holding.root is not None
    (holding.root / "z").write_bytes(b"mine")
    await other.unregister("n")
    again = await copy_at(other)
    assert await bring(again, chunks_of(copy.manifest, "z")) == FILES["z"]
    assert (holding.root / "z").read_bytes() == b"mine"
    await again.close()


async def test_who_waits_hears_why_nothing_comes(pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    from p2pstore.pull import hope

    one, other = pair
    copy = await copy_at(other)
    monkeypatch.setattr(hope, "NO_SOURCE_SECONDS", 0.2)
    await one.close()
    with pytest.raises(MooncakeError):
        await bring(copy, chunks_of(copy.manifest, "z"))
    await copy.close()


async def test_it_ends_while_it_brings_something(pair: tuple[Node, Node]) -> None:
    one, other = pair
    one.upload_limit.set(1000)
    copy = await copy_at(other)
    await copy.want(range(copy.manifest.chunks))
    waiting = asyncio.create_task(copy.arrival(0))
    await asyncio.sleep(0)
    await asyncio.wait_for(copy.close(), WAIT)
    with pytest.raises(MooncakeError):
        await waiting


@pytest.fixture
async def file_pair(start: Start, tmp_path: Path) -> tuple[Node, Node]:
    (tmp_path / "f").write_bytes(content(3 * MIB + 7))
    one, other = await start("one"), await start("other")
    await register(one, tmp_path / "f")
    return one, other


async def test_what_was_all_there_before_a_kill_is_put_in_place(
    file_pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Copy, "_filled", lambda _: None)
        copy = await copy_at(file_pair[1])
        await bring(copy, range(copy.manifest.chunks))
        await copy.close()
    file_pair[1].parts.publisher.drop_partial(file_pair[1].holdings.replicas[copy.manifest.digest])
    again = await copy_at(file_pair[1])
    path = await asyncio.wait_for(again.held(lambda _: None), WAIT)
    assert path.read_bytes() == content(3 * MIB + 7)
    await again.close()


async def test_who_waits_hears_that_it_cannot_be_put_in_place(
    file_pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = await copy_at(file_pair[1])

    def full(_: object) -> None:
        raise StorageError(path="kept", detail="no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(FileDestination, "finish", full)
        with pytest.raises(StorageError, match="no space left"):
            await asyncio.wait_for(copy.held(lambda _: None), WAIT)
    path = await asyncio.wait_for(copy.held(lambda _: None), WAIT)
    assert path.read_bytes() == content(3 * MIB + 7)
    await copy.close()
