"""Content by its digest: what the name stood for before is got, looked at, verified and given up like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pstore.errors import (
    AmbiguousDigest,
    BadReference,
    DigestOfAnother,
    NotHeld,
    ObjectNotFound,
    PeerHasNot,
    UsageError,
    VersionNotFound,
    VersionNotHeld,
)
from p2pstore.node import Node
from tests.p2pstore.nodes import Start, get, register, start
from tests.p2pstore.samples import MIB, content, read_tree, write_tree

__all__ = ["start"]

OLD = {"config.json": b"old", "w": content(2 * MIB, 1)}
NEW = {"config.json": b"new", "w": content(2 * MIB, 2)}


@pytest.fixture
async def two(start: Start, tmp_path: Path) -> tuple[Node, Node, str, str]:
    """Two nodes, and the digests of two versions of ``n``: the first node has the newer, the second the older."""
    a, b = await start("a"), await start("b")
    write_tree(tmp_path / "old", OLD)
    write_tree(tmp_path / "new", NEW)
    old = (await register(b, tmp_path / "old"))["manifest"]
    new = (await register(a, tmp_path / "new", force=True))["manifest"]
    return a, b, old, new


async def test_both_versions_are_got(start: Start, two: tuple[Node, Node, str, str], tmp_path: Path) -> None:
    _, _, old, new = two
    c = await start("c")
    for name, expected in (("n", NEW), (f"n@sha256:{new[:6]}", NEW), (f"n@{old}", OLD)):
        done = await get(c, tmp_path / "got", name, wipe=True)
        assert read_tree(tmp_path / "got") == expected
        assert done.manifest == (old if expected is OLD else new)
    assert done.seeding
    assert set(await c.registry.replicas(old)) == {"b", "c"}
    assert (await get(c, tmp_path / "x", f"n@sha256:{old[:8]}/config.json")).files == 1
    assert (tmp_path / "x").read_bytes() == b"old"


async def test_an_older_version_is_got_by_peer_alone(
    start: Start, two: tuple[Node, Node, str, str], tmp_path: Path
) -> None:
    a, b, old, new = two
    await get(b, tmp_path / "newer here", "n")
    await b.registry.store.close()
    c = await start("c")
    await c.registry.store.close()
    done = await get(c, tmp_path / "got", f"n@sha256:{old[:12]}", peers=(b.record.control,))
    assert (done.manifest, read_tree(tmp_path / "got")) == (old, OLD)
    with pytest.raises(PeerHasNot):
        await get(c, tmp_path / "other", f"n@sha256:{old[:12]}", peers=(a.record.control,))
    assert new != old


async def test_info_verify_and_unregister_of_one_version(two: tuple[Node, Node, str, str], tmp_path: Path) -> None:
    a, b, old, new = two
    shown = await a.info(f"n@sha256:{old[:10]}")
    assert (shown["manifest"], [r["node"] for r in shown["replicas"]]) == (old, ["b"])
    assert (await a.info("n"))["manifest"] == new
    await get(b, tmp_path / "newer", "n")
    assert (await b.verify(f"n@{old}", lambda *_: None))["path"] == str(tmp_path / "old")
    assert (await b.verify(f"n@{new}", lambda *_: None))["path"] == str(tmp_path / "newer")
    with pytest.raises(NotHeld, match=old[:10]):
        await a.verify(f"n@sha256:{old[:10]}", lambda *_: None)
    with pytest.raises(NotHeld, match=old[:10]):
        await a.unregister(f"n@sha256:{old[:10]}")
    gone = await b.unregister(f"n@sha256:{old[:10]}")
    assert (gone["name"], gone["manifest"], gone["replaced_by"]) == ("n", old, "a")
    assert [w["path"] for w in gone["withdrawn"]] == [str(tmp_path / "old")]
    assert [h.digest for h in b.holdings.named("n")] == [new]


async def test_a_tag_whose_version_lies_elsewhere_is_called_as_it_was_typed(
    two: tuple[Node, Node, str, str], tmp_path: Path
) -> None:
    a, _, old, _ = two
    await a.tag(f"n@{old}", ["step-1"])
    said = f"this node holds nothing of 'n:step-1', which stands for sha256:{old[:12]}"
    for ask in (a.unregister, lambda text: a.verify(text, lambda *_: None)):
        with pytest.raises(VersionNotHeld) as fault:
            await ask("n:step-1")
        assert str(fault.value) == said
        assert "'mooncake info n:step-1'" in fault.value.hint
        with pytest.raises(NotHeld, match="'n:step-1@sha256:"):
            await ask(f"n:step-1@{old[:10]}")


async def test_what_cannot_be_meant(two: tuple[Node, Node, str, str], tmp_path: Path) -> None:
    a, b, _, new = two
    write_tree(tmp_path / "other", {"": b"other"})
    other = (await register(a, tmp_path / "other", "other"))["manifest"]
    for kind, name in (
        (BadReference, "n@sha256:what"),
        (VersionNotFound, f"n@{'0' * 64}"),
        (DigestOfAnother, f"n@{other}"),
        (ObjectNotFound, f"none@{new}"),
    ):
        for ask in (a.info, a.unregister, lambda text: a.verify(text, lambda *_: None)):
            with pytest.raises(kind):
                await ask(name)
        with pytest.raises(kind):
            await get(b, tmp_path / "nothing", name)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("name", ["none/n@sha256:what", "none/n@sha256:what/config.json"])
async def test_a_bad_digest_after_a_name_with_parts_is_told_as_that(
    two: tuple[Node, Node, str, str], tmp_path: Path, name: str
) -> None:
    with pytest.raises(BadReference, match="its digest is not hexadecimal"):
        await get(two[0], tmp_path / "got", name)


async def test_a_beginning_that_several_have(start: Start, tmp_path: Path) -> None:
    """Seventeen versions: two begin with the same digit."""
    a = await start("a")
    path = tmp_path / "x"
    digests: list[str] = []
    for number in range(17):
        path = tmp_path / f"x{number}"
        path.write_bytes(b"%d" % number)
        digests.append((await register(a, path, force=True))["manifest"])
    first = next(d[0] for d in digests if sum(o[0] == d[0] for o in digests) > 1)
    with pytest.raises(AmbiguousDigest) as caught:
        await get(a, tmp_path / "got", f"n@sha256:{first}")
    for digest in digests:
        assert (digest[:16] in str(caught.value)) is digest.startswith(first)


async def test_what_is_superseded_is_marked(two: tuple[Node, Node, str, str]) -> None:
    a, b, old, new = two
    assert [(v["manifest"], v["current"], v["superseded"]) for v in (await a.history("n"))["versions"]] == [
        (new, True, False),
        (old, False, True),
    ]
    newer, older = await a.info("n"), await a.info(f"n@{old}")
    assert (newer["superseded"], newer["current"], [v["manifest"] for v in newer["older"]]) == (False, new, [old])
    assert (older["superseded"], older["current"]) == (True, new)
    assert newer["older"][0]["holders"] == [{"node": "b", "state": "complete"}]
    (listed,) = (await a.listing("", limit=0, after=""))["objects"]
    assert (listed["superseded"], listed["supersedes"]) == (1, old)
    assert (await b.verify("n", lambda *_: None))["superseded"]
    assert not (await a.verify("n", lambda *_: None))["superseded"]
    (mine,) = (await b.superseded())["superseded"]
    assert (mine["name"], mine["manifest"]) == ("n", old)
    assert await a.superseded() == {"superseded": []}
    await b.registry.store.close()
    assert await b.superseded() == {"superseded": None}
    with pytest.raises(UsageError, match="is one version"):
        await a.history(f"n@{old}")
    with pytest.raises(ObjectNotFound):
        await a.history("none")
