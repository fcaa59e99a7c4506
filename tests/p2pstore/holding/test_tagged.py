"""What a node holds of an object's versions: what a tag leads to is kept when the name moves on."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pstore.cluster.tags import find_tag
from p2pstore.errors import BadTag, NoLivePeer, ObjectNotFound, TagNotFound, UsageError
from tests.p2pstore.nodes import Start, get, register, start

__all__ = ["start"]


def step(directory: Path, number: int) -> Path:
    path = directory / f"step-{number}"
    path.write_bytes(b"weights of step %d" % number * 1000)
    return path


async def test_each_step_stays_with_its_tag(start: Start, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    made = {n: await register(a, step(tmp_path, n), force=True, tags=[f"step-{n}", "latest"]) for n in (1, 2, 3)}
    assert made[1]["tags"] == [{"tag": "step-1", "before": ""}, {"tag": "latest", "before": ""}]
    assert made[2]["tags"][1] == {"tag": "latest", "before": made[1]["manifest"]}
    assert {h.digest for h in a.holdings.named("n")} == {m["manifest"] for m in made.values()}
    for name, number in (("n:step-1", 1), ("n:step-2", 2), ("n:step-3", 3), ("n:latest", 3), ("n", 3)):
        await get(b, tmp_path / "got", name, force=True)
        assert (tmp_path / "got").read_bytes() == step(tmp_path, number).read_bytes()
    assert (await b.info("n:step-2"))["tags"] == ["step-2"]
    assert (await b.info("n"))["tags"] == ["latest", "step-3"]


async def test_only_the_last_stays_with_a_tag_that_moves(start: Start, tmp_path: Path) -> None:
    a = await start("a")
    for number in (1, 2, 3):
        made = await register(a, step(tmp_path, number), force=True, tags=["latest"])
        assert [h.digest for h in a.holdings.named("n")] == [made["manifest"]]


async def test_what_lies_at_the_same_place_cannot_stay(start: Start, tmp_path: Path) -> None:
    a = await start("a")
    path = tmp_path / "x"
    path.write_bytes(b"1")
    first = await register(a, path, tags=["one"])
    (tmp_path / "new").write_bytes(b"2")
    (tmp_path / "new").rename(path)
    second = await register(a, path, force=True, tags=["two"])
    assert [h.digest for h in a.holdings.named("n")] == [second["manifest"]]
    stale, good = (await a.tags("n"))["tags"]
    assert (stale["tag"], stale["manifest"], stale["complete"]) == ("one", first["manifest"], 0)
    assert (good["tag"], good["complete"]) == ("two", 1)
    with pytest.raises(NoLivePeer, match="n:one"):
        await get(a, tmp_path / "got", "n:one")


async def test_tags_are_given_listed_and_removed(start: Start, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    one, two = (step(tmp_path, number) for number in (1, 2))
    first = await register(a, one, tags=["kept"])
    second = await register(b, two, force=True)
    assert await b.tag("n", ["stable", "stable"]) == {
        "name": "n",
        "manifest": second["manifest"],
        "tags": [{"tag": "stable", "before": ""}],
    }
    assert (await a.tag("n:kept", ["stable"]))["tags"] == [{"tag": "stable", "before": second["manifest"]}]
    assert (await a.tag(f"n@{second['manifest'][:9]}", ["new"]))["manifest"] == second["manifest"]
    assert [(t["tag"], t["manifest"]) for t in (await b.tags("n"))["tags"]] == [
        ("kept", first["manifest"]),
        ("new", second["manifest"]),
        ("stable", first["manifest"]),
    ]
    assert [t["tag"] for t in (await b.tags("n:new"))["tags"]] == ["new"]
    assert [t["tag"] for t in (await b.tags(f"n@{first['manifest'][:9]}"))["tags"]] == ["kept", "stable"]
    assert await b.untag("n:stable") == {"name": "n", "tag": "stable", "manifest": first["manifest"]}
    for work in (
        b.untag("n:stable"),
        b.tags("n:stable"),
        b.tag("n:stable", ["x"]),
        b.info("n:stable"),
        b.verify("n:stable", print),
    ):
        with pytest.raises(TagNotFound):
            await work
    for other in (b.untag("m:stable"), b.tags("m"), b.tag("m", ["x"])):
        with pytest.raises(ObjectNotFound):
            await other
    for text in ("n", f"n:kept@{first['manifest']}"):
        with pytest.raises(UsageError):
            await b.untag(text)
    with pytest.raises(BadTag):
        await b.tag("n", ["a", "b c"])
    assert await find_tag(b.registry, "n", "a") is None, "nothing is done by half"


async def test_a_version_is_given_up_by_its_tag_which_stays(start: Start, tmp_path: Path) -> None:
    a = await start("a")
    first = await register(a, step(tmp_path, 1), tags=["one"])
    await register(a, step(tmp_path, 2), force=True, tags=["two"])
    assert (await a.verify("n:one", lambda *_: None))["path"].endswith("step-1")
    gone = await a.unregister("n:one")
    assert (gone["manifest"], gone["tags"], len(gone["withdrawn"])) == (first["manifest"], ["one"], 1)
    assert (await a.unregister("n"))["tags"] == ["two"]
    assert [t["complete"] for t in (await a.tags("n"))["tags"]] == [0, 0]


async def test_when_the_newest_goes_the_name_falls_back_to_what_is_still_here(start: Start, tmp_path: Path) -> None:
    a = await start("a")
    for number in (1, 2, 3):
        await register(a, step(tmp_path, number), force=True, tags=[f"s{number}"])
    await a.unregister("n:s3")
    assert (await a.info("n"))["tags"] == ["s2"]


async def test_after_a_restart_all_versions_are_served_again(start: Start, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    for number in (1, 2):
        await register(a, step(tmp_path, number), force=True, tags=[f"s{number}"])
    await a.close()
    await start("a")
    for number in (1, 2):
        await get(b, tmp_path / f"got {number}", f"n:s{number}")
