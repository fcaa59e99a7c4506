"""Names and revisions, and what files are called by their content, whoever has to say so."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from p2pstore.errors import PeerBusy, PeerHasNot
from p2pstore.hub.copies import Copies
from p2pstore.hub.repos import RepoNotFound, Repos, RevisionNotFound
from p2pstore.node import Node
from p2pstore.objects.oid import git_oid
from tests.p2pstore.nodes import FILES, Start, register, root, start

__all__ = ["root", "start"]

WAIT = 60.0


class Place:
    """Makes what there is on a node, and ends it."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    def repos(self, node: Node) -> Repos:
        copies = Copies(node.parts, node.supervisor)
        made = Repos(node.parts, copies)
        self._stack.push_async_callback(copies.close)
        self._stack.push_async_callback(made.close)
        return made


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        yield Place(stack)


async def test_revisions(start: Start, root: Path, place: Place) -> None:
    one, other = await start("one"), await start("other")
    digest = (await register(one, root))["manifest"]
    repos = place.repos(other)
    for revision in ("main", digest[:40], digest, "", "HEAD"):
        found = await repos.find("n", revision)
        assert (found.manifest.digest, found.commit) == (digest, digest[:40])
    for revision in ("v1", "f" * 40, digest[:39]):
        with pytest.raises(RevisionNotFound):
            await repos.find("n", revision)
    for name in ("none", "no such/name", "../n"):
        with pytest.raises(RepoNotFound):
            await repos.find(name, "main")


async def test_an_earlier_version_is_there_as_long_as_anybody_has_it(
    start: Start, tmp_path: Path, place: Place
) -> None:
    one, other = await start("one"), await start("other")
    for number in range(2):
        (tmp_path / str(number)).write_bytes(b"%d" % number)
    first = (await register(one, tmp_path / "0"))["manifest"]
    second = (await register(other, tmp_path / "1", force=True))["manifest"]
    assert (await place.repos(one).find("n", "main")).manifest.digest == second
    assert (await place.repos(one).find("n", first[:40])).manifest.digest == first
    assert (await place.repos(other).find("n", first[:40])).manifest.digest == first
    await one.unregister(f"n@{first}")
    with pytest.raises(RevisionNotFound):
        await place.repos(other).find("n", first[:40])


async def test_a_tag_is_a_revision(start: Start, tmp_path: Path, place: Place) -> None:
    one, other = await start("one"), await start("other")
    for number in range(2):
        (tmp_path / str(number)).write_bytes(b"%d" % number)
    first = (await register(one, tmp_path / "0", tags=("v1",)))["manifest"]
    await register(one, tmp_path / "1", force=True)
    repos = place.repos(other)
    assert (await repos.find("n", "v1")).manifest.digest == first
    assert await repos.tags("n") == {"v1": first[:40]}
    assert await repos.tags("none") == {}


async def test_a_single_file_is_called_like_the_object(start: Start, tmp_path: Path, place: Place) -> None:
    one = await start("one")
    (tmp_path / "f").write_bytes(b"x")
    await register(one, tmp_path / "f", "org/model.gguf")
    found = await place.repos(one).find("org/model.gguf", "main")
    assert found.paths == ["model.gguf"]
    assert found.number("model.gguf") == 0
    assert found.number("other") == -1
    assert await place.repos(one).oid(found, 0) == hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize("who", ["holder", "other"])
async def test_names_by_content(start: Start, root: Path, place: Place, who: str) -> None:
    """A node that has none of it is told them, and brings nothing for that."""
    nodes = {"holder": await start("one"), "other": await start("two")}
    await register(nodes["holder"], root)
    repos = place.repos(nodes[who])
    found = await repos.find("n", "main")
    assert await repos.oids(found) == [git_oid(FILES[path]) for path in sorted(FILES)]
    assert found.manifest.digest in nodes["holder"].holdings.replicas
    assert (who == "other") is (found.manifest.digest not in nodes[who].holdings.replicas)


async def test_a_holder_that_is_busy_is_asked_again(
    start: Start, root: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await start("one"), await start("other")
    await register(one, root)
    repos = place.repos(other)
    found = await repos.find("n", "main")
    ask = other.parts.client.oid
    asked = []

    async def busy(control: str, digest: str, file: int, way: str) -> str:
        asked.append(file)
        if len(asked) == 1:
            raise PeerBusy(peer=control)
        return await ask(control, digest, file, way)

    monkeypatch.setattr(other.parts.client, "oid", busy)
    number = found.number("z")
    assert await repos.oid(found, number) == git_oid(FILES["z"])
    assert asked == [number, number]


async def test_where_nobody_says_so_the_file_is_brought(
    start: Start, root: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As holders of an earlier version do, which do not know the question."""
    one, other = await start("one"), await start("other")
    await register(one, root)
    repos = place.repos(other)
    found = await repos.find("n", "main")

    async def never(control: str, *_: object) -> str:
        raise PeerHasNot(peer=control, what="the file")

    monkeypatch.setattr(other.parts.client, "oid", never)
    number = found.number("z")
    assert await asyncio.wait_for(repos.oid(found, number), WAIT) == git_oid(FILES["z"])
    replica = other.holdings.replicas[found.manifest.digest]
    assert sorted(replica.have) == list(range(*found.manifest.first_chunks[number : number + 2]))


async def test_what_lies_here_is_there_without_metadata(
    start: Start, root: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from p2pstore.errors import MetadataUnavailable

    one = await start("one")
    await register(one, root)

    async def away(_: str) -> None:
        raise MetadataUnavailable(url="etcd://x", detail="away")

    monkeypatch.setattr(one.registry, "find", away)
    assert (await place.repos(one).find("n", "main")).record.name == "n"
    with pytest.raises(MetadataUnavailable):
        await place.repos(one).find("other", "main")
