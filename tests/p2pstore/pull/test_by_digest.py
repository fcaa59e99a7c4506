"""Content by its digest: what the name stood for before is got like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pstore.errors import (
    AmbiguousDigest,
    BadReference,
    PeerHasNot,
)
from p2pstore.node import Node
from tests.p2pstore.nodes import Start, get, register, start
from tests.p2pstore.samples import read_tree
from tests.p2pstore.two_versions import NEW, OLD, two

__all__ = ["start", "two"]


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
