"""A get that updates replaces another version of the same object, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pstore.errors import DestinationExists, DestinationServed, ForeignContent, UsageError
from p2pstore.node import Node
from p2pstore.objects.chosen import Choice
from p2pstore.pull import earlier
from p2pstore.pull.earlier import differ
from p2pstore.pull.file_destination import FileDestination
from tests.p2pstore.nodes import Start, get, leftovers, register, start
from tests.p2pstore.samples import MIB, content, manifest_of, read_tree, write_tree

__all__ = ["start"]

SAME = content(3 * MIB, 1)
VERSIONS = [
    {"config.json": b"%d" % number, "w": SAME + content(MIB, 10 + number), f"only-{number}": b"x"}
    for number in range(3)
]


async def publish(node: Node, directory: Path, number: int, files: dict[str, bytes] | None = None) -> str:
    write_tree(directory / f"v{number}", files or VERSIONS[number])
    made = await register(node, directory / f"v{number}", force=True, tags=[f"v{number}"])
    return str(made["manifest"])


@pytest.fixture
async def two(start: Start, tmp_path: Path) -> tuple[Node, Node, str]:
    """A node with two versions, another with the first at ``got``, and the digest of that."""
    a, b = await start("a"), await start("b")
    first = await publish(a, tmp_path, 0)
    await get(b, tmp_path / "got")
    await publish(a, tmp_path, 1)
    return a, b, first


async def test_an_earlier_version_is_replaced_by_what_changed(two: tuple[Node, Node, str], tmp_path: Path) -> None:
    _, b, first = two
    with pytest.raises(DestinationExists):
        await get(b, tmp_path / "got")
    done = await get(b, tmp_path / "got", update=True)
    assert read_tree(tmp_path / "got") == VERSIONS[1]
    assert done.replaced == first
    assert done.bytes_reused >= 3 * MIB
    assert done.bytes_pulled <= MIB + 10
    again = await get(b, tmp_path / "got", update=True)
    assert (again.bytes_pulled, again.replaced) == (0, "")
    assert [h.digest for h in b.holdings.named("n")] == [done.manifest]


async def test_nothing_of_what_is_served_is_hashed_again(
    two: tuple[Node, Node, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, b, _ = two
    monkeypatch.setattr(earlier, "hash_tree", lambda *_, **__: pytest.fail("it was known by its stamps"))
    monkeypatch.setattr("p2pstore.pull.get.find_places", lambda *_: pytest.fail("it is served"))
    monkeypatch.setattr("p2pstore.pull.get.same_content", lambda *_: pytest.fail("it differs, and is served"))
    assert (await get(b, tmp_path / "got", update=True)).bytes_reused >= 3 * MIB


async def test_where_nothing_is_an_update_is_a_get(two: tuple[Node, Node, str], tmp_path: Path) -> None:
    _, b, _ = two
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        assert (await get(b, tmp_path / name, update=True)).replaced == ""
        assert read_tree(tmp_path / name) == VERSIONS[1]


async def test_it_follows_a_tag_backwards_too(two: tuple[Node, Node, str], tmp_path: Path) -> None:
    a, b, first = two
    await get(b, tmp_path / "got", update=True)
    await a.tag("n:v0", ["stable"])
    done = await get(b, tmp_path / "got", "n:stable", update=True)
    assert (done.manifest, read_tree(tmp_path / "got")) == (first, VERSIONS[0])


async def test_a_copy_that_nobody_serves_is_known_by_its_hashes(two: tuple[Node, Node, str], tmp_path: Path) -> None:
    _, b, first = two
    await b.unregister("n")
    done = await get(b, tmp_path / "got", update=True)
    assert (done.replaced, read_tree(tmp_path / "got")) == (first, VERSIONS[1])
    assert done.bytes_reused >= 3 * MIB


@pytest.mark.parametrize("held", [True, False])
async def test_what_was_changed_is_no_version(two: tuple[Node, Node, str], tmp_path: Path, held: bool) -> None:
    _, b, _ = two
    if not held:
        await b.unregister("n")
    (tmp_path / "got" / "config.json").write_bytes(b"mine")
    before = read_tree(tmp_path / "got")
    with pytest.raises(DestinationExists):
        await get(b, tmp_path / "got", update=True)
    assert read_tree(tmp_path / "got") == before
    assert leftovers(tmp_path) == set()


@pytest.mark.parametrize("held", [True, False])
async def test_what_somebody_put_there_is_kept(two: tuple[Node, Node, str], tmp_path: Path, held: bool) -> None:
    _, b, _ = two
    if not held:
        await b.unregister("n")
    (tmp_path / "got" / "notes.txt").write_bytes(b"mine")
    with pytest.raises(ForeignContent if held else DestinationExists):
        await get(b, tmp_path / "got", update=True)
    assert (tmp_path / "got" / "notes.txt").read_bytes() == b"mine"
    assert (tmp_path / "got" / "config.json").read_bytes() == b"0"


async def test_another_object_is_not_replaced(two: tuple[Node, Node, str], tmp_path: Path) -> None:
    a, b, _ = two
    write_tree(tmp_path / "other", {"": b"other"})
    await register(a, tmp_path / "other", "other")
    await get(b, tmp_path / "place", "other")
    for dest in (tmp_path / "place", tmp_path / "v0", tmp_path / "other"):
        with pytest.raises((DestinationExists, DestinationServed)):
            await get(b if dest.name != "v0" else a, dest, "other" if dest.name == "v0" else "n", update=True)
    assert (tmp_path / "place").read_bytes() == b"other"
    assert read_tree(tmp_path / "v0") == VERSIONS[0]


async def test_a_single_file(start: Start, tmp_path: Path) -> None:
    a, b = await start("a"), await start("b")
    first = await publish(a, tmp_path, 0, {"": b"first"})
    await get(b, tmp_path / "got")
    await publish(a, tmp_path, 1, {"": b"second"})
    done = await get(b, tmp_path / "got", update=True)
    assert (done.replaced, (tmp_path / "got").read_bytes()) == (first, b"second")
    await publish(a, tmp_path, 2, {"": b"third"})
    (tmp_path / "got").write_bytes(b"other")
    with pytest.raises(DestinationExists):
        await get(b, tmp_path / "got", update=True)
    assert (tmp_path / "got").read_bytes() == b"other"


async def test_what_changes_during_the_get_is_kept(
    two: tuple[Node, Node, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, b, _ = two
    monkeypatch.setattr(b.parts.watcher, "_on_touched", lambda _: None)
    path = tmp_path / "got" / "config.json"
    real = FileDestination.finish

    def finish(self: FileDestination):  # type: ignore[no-untyped-def]
        path.write_bytes(b"mine")
        return real(self)

    monkeypatch.setattr(FileDestination, "finish", finish)
    with pytest.raises(DestinationExists):
        await get(b, tmp_path / "got", update=True)
    assert path.read_bytes() == b"mine"


async def test_a_dry_run_says_what_would_be_replaced(two: tuple[Node, Node, str], tmp_path: Path) -> None:
    _, b, first = two
    done = await get(b, tmp_path / "got", update=True, dry_run=True)
    assert (done.replaced, done.bytes_reused >= 3 * MIB) == (first, True)
    assert read_tree(tmp_path / "got") == VERSIONS[0]


async def test_only_whole_objects_are_updated(two: tuple[Node, Node, str], tmp_path: Path) -> None:
    _, b, _ = two
    for how in ({"choice": Choice(include=("w",))}, {"tensors": ("*",)}, {"force": True}, {"wipe": True}):
        with pytest.raises(UsageError):
            await get(b, tmp_path / "got", update=True, **how)
    assert read_tree(tmp_path / "got") == VERSIONS[0]


def test_what_is_known_to_differ() -> None:
    one = manifest_of({"a": b"1" * 100, "b": b"2"}, 64)
    assert differ(one, manifest_of({"a": b"1" * 100, "b": b"3"}, 64))
    assert differ(one, manifest_of({"a": b"1" * 99, "b": b"2"}, 64))
    assert differ(one, manifest_of({"a": b"1" * 100, "c": b"2"}, 64))
    assert differ(one, manifest_of({"": b"1" * 100}, 64))
    assert differ(one, manifest_of({"a": b"1" * 100, "b": b"2"}, 64, ("d",)))
    assert not differ(one, manifest_of({"a": b"1" * 100, "b": b"2"}, 64))
    assert not differ(one, manifest_of({"a": b"1" * 100, "b": b"3"}, 32)), "cut otherwise: nobody can say"
