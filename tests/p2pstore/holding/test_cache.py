"""What lies on real nodes: listed, pinned, and deleted only where nothing is lost by it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2pstore.errors import CopyStays, LastCopy, MooncakeError, NotAllDeleted, NotHeld, StorageError
from p2pstore.holding import cache as cache_module
from p2pstore.holding.catalog import Catalog
from p2pstore.holding.deletion import Deleted
from p2pstore.holding.eviction import REST_SECONDS, Copy, Quota
from p2pstore.node import Node
from p2pstore.objects.chosen import Choice
from p2pstore.objects.steps import Steps
from tests.p2pstore.nodes import FILES, WAIT, Start, get, register, root, start

__all__ = ["root", "start"]

SIZE = sum(map(len, FILES.values()))


async def copy_of(node: Node, name: str = "n") -> Copy:
    (found,) = [copy for copy in node.parts.cache.copies() if copy.name == name]
    return found


async def delete(node: Node, name: str = "n", **options: Any) -> Deleted:
    copy = await copy_of(node, name)
    return await node.parts.cache.delete((copy.name, copy.place), copy.manifest, **options)


async def stays(node: Node, name: str = "n", error: type[MooncakeError] = CopyStays, **options: Any) -> str:
    """Why a copy is not deleted; it is held and served as before."""
    copy = await copy_of(node, name)
    doubt = await node.parts.cache.doubt((copy.name, copy.place), **options)
    with pytest.raises(error) as caught:
        await delete(node, name, **options)
    assert type(doubt) is error
    assert await copy_of(node, name) == copy
    shown = {one["node"]: one for one in (await node.info(name))["replicas"]}
    assert shown[node.name]["state"] == "complete"
    return str(caught.value)


@pytest.fixture
async def two(start: Start, root: Path, tmp_path: Path) -> tuple[Node, Node]:
    """One that registered a tree, and one that got it at ``copy``."""
    alpha, beta = await start("alpha"), await start("beta")
    await register(alpha, root)
    await get(beta, tmp_path / "copy")
    return alpha, beta


async def test_what_lies_here(two: tuple[Node, Node], root: Path, tmp_path: Path) -> None:
    alpha, beta = two
    gold, replica = await copy_of(alpha), await copy_of(beta)
    assert (gold.role, gold.place, gold.size, gold.files) == ("gold", str(root), SIZE, len(FILES))
    assert (replica.role, replica.place, replica.written) == ("replica", str(tmp_path / "copy"), True)
    assert replica.since > 0
    assert gold.used > 0, "a peer has used it"
    listing = await beta.cache()
    assert listing["quota"] is None
    assert listing["copies"][0]["stays"] == ""
    assert (await alpha.cache())["copies"][0]["stays"] != ""
    assert (await beta.listing("", limit=0, after=""))["objects"][0]["here"] == [str(tmp_path / "copy")]
    assert (await beta.info("n"))["here"] == [{"role": "replica", "path": str(tmp_path / "copy")}]
    await asyncio.sleep(0)
    third = tmp_path / "third"
    await get(beta, third, name="n")
    assert [copy.place for copy in beta.parts.cache.copies()] == [str(tmp_path / "copy"), str(third)]
    assert beta.parts.cache.copies()[0].used, "a get of this node has used it"


async def test_a_part_is_listed_and_stays(two: tuple[Node, Node], start: Start, tmp_path: Path) -> None:
    gamma = await start("gamma")
    await get(gamma, tmp_path / "part", choice=Choice("", ("z",)))
    (part,) = gamma.parts.cache.copies()
    assert (part.role, part.size, part.files) == ("part", len(FILES["z"]), 1)
    assert "a part" in part.stays
    with pytest.raises(CopyStays, match="part of an object"):
        await gamma.unregister("n", delete=True)
    assert (await gamma.unregister("n"))["deleted"] == []


async def test_a_replica_goes_and_its_name_stays(two: tuple[Node, Node], tmp_path: Path) -> None:
    alpha, beta = two
    gone = await delete(beta)
    assert (gone.files, gone.bytes, gone.removed) == (len(FILES), SIZE, False)
    assert not (tmp_path / "copy").exists()
    assert beta.parts.cache.copies() == []
    assert [one["node"] for one in (await alpha.info("n"))["replicas"]] == ["alpha"]
    with pytest.raises(NotHeld):
        await beta.parts.cache.delete(("n", str(tmp_path / "copy")))


async def test_what_was_registered_stays(two: tuple[Node, Node], root: Path) -> None:
    assert "it was registered" in await stays(two[0], last_copies=True)
    assert "it was registered" in await stays(two[0], last_copies=True, by_name=True)
    with pytest.raises(CopyStays, match="registered"):
        await two[0].unregister("n", delete=True, last_copies=True)
    assert set(os.listdir(root)) == {path.partition("/")[0] for path in (*FILES, "none")}


async def test_the_last_whole_copy_stays_unless_told(two: tuple[Node, Node], tmp_path: Path) -> None:
    alpha, beta = two
    await alpha.unregister("n")
    assert "no other node that answers has all of 'n'" in await stays(beta, error=LastCopy)
    gone = await delete(beta, last_copies=True)
    assert gone.removed is True
    assert not (tmp_path / "copy").exists()


async def test_who_only_says_so_does_not_count(two: tuple[Node, Node]) -> None:
    """A node that died is known until its lease ends."""
    alpha, beta = two
    await alpha.parts.registry.store.close()  # so that it cannot withdraw
    await alpha.close()
    assert "alpha" in {one["node"] for one in (await beta.info("n"))["replicas"]}
    await stays(beta, error=LastCopy)


async def test_two_nodes_that_delete_at_once_leave_one_copy(start: Start, root: Path, tmp_path: Path) -> None:
    nodes = [await start(name) for name in ("alpha", "beta", "gamma")]
    await register(nodes[0], root)
    for number, node in enumerate(nodes[1:]):
        await get(node, tmp_path / str(number))
    await nodes[0].unregister("n")
    outcomes = await asyncio.gather(*(delete(node) for node in nodes[1:]), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(Deleted) <= 1
    assert all(isinstance(outcome, (Deleted, LastCopy)) for outcome in outcomes)
    left = [number for number in range(2) if (tmp_path / str(number)).exists()]
    assert len(left) == 2 - [type(outcome) for outcome in outcomes].count(Deleted)
    replicas = (await nodes[1].info("n"))["replicas"]
    assert {one["state"] for one in replicas} == {"complete"}
    assert len(replicas) == len(left)


async def test_nobody_can_be_asked(two: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    beta = two[1]

    async def replicas(digest: str) -> Any:
        raise StorageError(path="metadata", detail="it does not answer")

    monkeypatch.setattr(beta.parts.registry, "replicas", replicas)
    copy = await copy_of(beta)
    with pytest.raises(LastCopy, match="it does not answer"):
        await delete(beta)
    assert await copy_of(beta) == copy


async def test_a_second_copy_here_will_do(two: tuple[Node, Node], tmp_path: Path) -> None:
    alpha, beta = two
    await get(beta, tmp_path / "second")
    await alpha.unregister("n")
    cache = beta.parts.cache
    await cache.delete(("n", str(tmp_path / "copy")))
    assert not (tmp_path / "copy").exists()
    with pytest.raises(LastCopy):
        await cache.delete(("n", str(tmp_path / "second")))
    assert (tmp_path / "second").exists()


async def test_what_is_pinned_stays(two: tuple[Node, Node], tmp_path: Path) -> None:
    beta = two[1]
    assert [copy["pinned"] for copy in (await beta.pin(["n"], pinned=True))["copies"]] == [True]
    assert "pinned" in await stays(beta)
    assert "pinned" in await stays(beta, by_name=True)
    await beta.pin([str(tmp_path / "copy")], pinned=False)
    await delete(beta)
    with pytest.raises(NotHeld):
        await beta.pin(["n"], pinned=True)


async def test_notes_outlive_the_node(start: Start, root: Path, tmp_path: Path) -> None:
    alpha, beta = await start("alpha"), await start("beta")
    await register(alpha, root)
    await get(beta, tmp_path / "copy")
    await beta.pin(["n"], pinned=True)
    beta.holdings.use((await copy_of(beta)).manifest)
    await asyncio.sleep(0)
    before = await copy_of(beta)
    assert before.used
    await beta.close()
    again = await start("beta")
    assert await copy_of(again) == before
    await again.pin(["n"], pinned=False)
    await delete(again)
    assert not (tmp_path / "copy").exists()


async def test_what_an_earlier_version_got_stays(start: Start, root: Path, tmp_path: Path) -> None:
    """It noted nothing."""
    alpha, beta = await start("alpha"), await start("beta")
    await register(alpha, root)
    await get(beta, tmp_path / "copy")
    state = beta.parts.options.state
    assert state is not None
    await beta.close()
    catalog = Catalog(state / "catalog.db")
    catalog._db.execute("DELETE FROM notes")
    catalog.close()
    again = await start("beta")
    assert (await copy_of(again)).since == 0
    assert "did not write its files" in await stays(again)


async def test_what_was_there_before_a_get_stays(two: tuple[Node, Node], root: Path, tmp_path: Path) -> None:
    """The get found that it is the object, and wrote nothing."""
    beta = two[1]
    shutil.copytree(root, tmp_path / "mine")
    await get(beta, tmp_path / "mine")
    with pytest.raises(CopyStays, match="did not write"):
        await beta.parts.cache.delete(("n", str(tmp_path / "mine")))
    assert (tmp_path / "mine").exists()


async def test_a_directory_of_the_users_stays_and_what_is_in_it(start: Start, root: Path, tmp_path: Path) -> None:
    alpha, beta = await start("alpha"), await start("beta")
    await register(alpha, root)
    (tmp_path / "mine").mkdir()
    await get(beta, tmp_path / "mine")
    await delete(beta)
    assert list((tmp_path / "mine").iterdir()) == []
    await get(beta, tmp_path / "mine")
    (tmp_path / "mine" / "notes").write_text("precious")
    await delete(beta)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes"]


def a_link_to_a_file(copy: Path, gold: Path) -> None:
    gold.symlink_to(copy / "z")


def a_directory_of_links(copy: Path, gold: Path) -> None:
    gold.mkdir()
    (gold / "one").symlink_to(copy / "config.json")


def the_directory_above(copy: Path, gold: Path) -> None:
    gold.mkdir()
    copy.rename(gold / "copy")


@pytest.mark.parametrize("make", [a_link_to_a_file, a_directory_of_links])
async def test_files_that_are_also_registered_stay(
    two: tuple[Node, Node], tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    beta = two[1]
    make(tmp_path / "copy", tmp_path / "gold")
    await register(beta, tmp_path / "gold", "gold")
    assert "the same files as gold, too" in await stays(beta)
    await beta.unregister("gold")
    await delete(beta)


async def test_a_replica_inside_a_registered_directory_stays(start: Start, root: Path, tmp_path: Path) -> None:
    alpha, beta = await start("alpha"), await start("beta")
    await register(alpha, root)
    (tmp_path / "above").mkdir()
    await get(beta, tmp_path / "above" / "copy")
    await register(beta, tmp_path / "above", "all")
    assert "the same files as all, too" in await stays(beta)


async def test_what_somebody_changed_stays(two: tuple[Node, Node], tmp_path: Path) -> None:
    beta = two[1]
    (tmp_path / "copy" / "z").chmod(0o600)
    assert "was touched since" in await stays(beta)
    await beta.parts.watcher.look()
    for _ in range(600):
        if "touched or changed" in await stays(beta):
            break
        await asyncio.sleep(0.1)  # it is read again, and has new stamps
    assert (tmp_path / "copy" / "z").exists()


async def test_what_fails_before_the_first_file_is_served_again(
    two: tuple[Node, Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beta = two[1]
    monkeypatch.setattr(cache_module, "delete", lambda *_: Deleted(left="the disk is read-only"))
    assert "read-only" in await _fails(beta, CopyStays)
    assert (await copy_of(beta)).place == str(tmp_path / "copy")
    assert (await beta.info("n"))["replicas"][1]["state"] == "complete"
    monkeypatch.setattr(cache_module, "delete", lambda *_: Deleted(2, 10, left="the disk fails"))
    assert "2 were deleted" in await _fails(beta, NotAllDeleted)
    assert beta.parts.cache.copies() == []


async def _fails(node: Node, error: type[MooncakeError]) -> str:
    with pytest.raises(error) as caught:
        await delete(node)
    return str(caught.value)


async def test_a_catalog_that_cannot_be_written_keeps_the_copy(
    two: tuple[Node, Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beta = two[1]

    def change(*_: object) -> None:
        raise StorageError(path="catalog.db", detail="no space left")

    with monkeypatch.context() as broken:
        broken.setattr(beta.holdings._catalog, "change", change)
        with pytest.raises(StorageError):
            await delete(beta)
    assert (tmp_path / "copy" / "z").exists()
    assert (await beta.info("n"))["replicas"][1]["state"] == "complete"
    await delete(beta)


async def test_a_peer_that_reads_goes_on(two: tuple[Node, Node], start: Start, tmp_path: Path) -> None:
    """It is served no more, and the others have it; whoever reads just now loses nothing."""
    alpha, beta = two
    gamma = await start("gamma")
    alpha.upload_limit.set(1 << 20)
    beta.upload_limit.set(1 << 20)
    getting = asyncio.ensure_future(get(gamma, tmp_path / "third", transport="tcp"))
    digest = (await copy_of(beta)).manifest
    for _ in range(600):
        if (replica := gamma.holdings.replicas.get(digest)) is not None and replica.have.count:
            break
        await asyncio.sleep(0.1)
    await delete(beta)
    alpha.upload_limit.set(0)
    await asyncio.wait_for(getting, WAIT)
    for path, data in FILES.items():
        assert (tmp_path / "third" / path).read_bytes() == data


async def test_a_get_of_this_node_that_copies_from_it_goes_on(two: tuple[Node, Node], tmp_path: Path) -> None:
    beta = two[1]
    getting = asyncio.ensure_future(get(beta, tmp_path / "second"))
    await asyncio.sleep(0)
    outcome = (await asyncio.gather(delete(beta), return_exceptions=True))[0]
    assert isinstance(outcome, Deleted)
    await getting
    for path, data in FILES.items():
        assert (tmp_path / "second" / path).read_bytes() == data


async def test_a_get_that_replaces_it_meanwhile_keeps_what_it_brought(
    two: tuple[Node, Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version comes to the same place, between the last look and the first removal."""
    alpha, beta = two
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / "config.json").write_bytes(b"{2}")
    await register(alpha, tmp_path / "v2", "m")
    real = cache_module.delete
    loop = asyncio.get_running_loop()

    def late(*arguments: Any) -> Deleted:
        asyncio.run_coroutine_threadsafe(get(beta, tmp_path / "copy", "m", wipe=True), loop).result(WAIT)
        return real(*arguments)

    monkeypatch.setattr(cache_module, "delete", late)
    with pytest.raises(MooncakeError):
        await delete(beta)
    assert (tmp_path / "copy" / "config.json").read_bytes() == b"{2}"
    assert (await copy_of(beta, "m")).place == str(tmp_path / "copy")


# What was kept of a stream


async def kept(node: Node, name: str = "s") -> None:
    incoming = await asyncio.to_thread(node.incoming, name, "xxh3_128")
    await asyncio.to_thread(incoming.write, b"stream")
    await node.register_incoming(incoming, name, force=False, steps=Steps())


async def test_what_was_kept_of_a_stream_goes_by_name_alone(start: Start) -> None:
    node = await start("alpha")
    await kept(node)
    copy = await copy_of(node, "s")
    assert (copy.role, copy.written) == ("kept", True)
    assert "unregister it with --delete" in await stays(node, "s", last_copies=True)
    await stays(node, "s", LastCopy, by_name=True)
    done = await node.unregister("s", delete=True, last_copies=True)
    assert (done["removed"], done["deleted"]) == (True, [{"path": copy.place, "files": 1, "bytes": 6}])
    assert os.listdir(os.path.dirname(copy.place)) == []


async def test_unregister_deletes_all_or_nothing(two: tuple[Node, Node], tmp_path: Path) -> None:
    beta = two[1]
    await get(beta, tmp_path / "second")
    os.utime(tmp_path / "second" / "z")
    with pytest.raises(CopyStays):
        await beta.unregister("n", delete=True)
    assert (tmp_path / "copy").exists()
    assert len(beta.parts.cache.copies()) == 2


# The quota


async def test_a_quota_takes_what_was_used_least_lately(start: Start, tmp_path: Path) -> None:
    alpha = await start("alpha")
    beta = await start("beta", cache_quota=250, cache_high=1.0, cache_low=0.9)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(name.encode() * 100)
        await register(alpha, tmp_path / name, name)
        await get(beta, tmp_path / f"copy-{name}", name)
    cache = beta.parts.cache
    assert await cache.evict() == [], "all of it has just come"
    for number, holding in enumerate(beta.holdings):
        holding.note.since -= 2 * REST_SECONDS + number
        holding.note.used = 0
    beta.holdings.at(tmp_path / "copy-c").note.used = beta.holdings.at(tmp_path / "copy-a").note.since + 1
    assert [copy.name for copy in await cache.evict()] == ["b"]
    assert not (tmp_path / "copy-b").exists()
    assert (await beta.cache())["quota"] == {"bytes": 250, "high": 1.0, "low": 0.9, "taken": 200}
    assert (cache.evicted, cache.deleted_bytes) == (1, 100)


async def test_what_a_quota_may_not_take_is_passed_over(start: Start, tmp_path: Path) -> None:
    alpha, beta = await start("alpha"), await start("beta")
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).write_bytes(name.encode() * 100)
        await register(alpha, tmp_path / name, name)
        await get(beta, tmp_path / f"copy-{name}", name)
    for number, holding in enumerate(beta.holdings):
        holding.note.since -= 2 * REST_SECONDS - number
    await alpha.unregister("a")  # the last copy is here now
    await beta.pin(["b"], pinned=True)
    beta.parts.cache.quota = Quota(350, 1.0, 0.9)
    assert [copy.name for copy in await beta.parts.cache.evict()] == ["c"]
    beta.parts.cache.quota = Quota(10, 1.0, 0.9)
    assert [copy.name for copy in await beta.parts.cache.evict()] == ["d"]
    assert sorted(copy.name for copy in beta.parts.cache.copies()) == ["a", "b"]


async def test_it_is_kept_in_the_background(
    start: Start, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "WATCH_SECONDS", 0.05)
    alpha, beta = await start("alpha"), await start("beta", cache_quota=1)
    await register(alpha, root)
    await get(beta, tmp_path / "copy")
    beta.holdings.at(tmp_path / "copy").note.since = 1.0
    for _ in range(600):
        if not (tmp_path / "copy").exists() and not beta.parts.cache.copies():
            return
        beta.holdings.at(tmp_path / "copy") and setattr(beta.holdings.at(tmp_path / "copy").note, "used", 0.0)
        await asyncio.sleep(0.1)
    pytest.fail("it is still there")
