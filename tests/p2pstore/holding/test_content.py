"""Each kind of content is looked at, hashed and held alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pstore.holding.content import SHOWN_PATHS, FileContent, How, IncomingContent, MemoryContent, some
from p2pstore.holding.incoming import Incoming
from p2pstore.objects.memory_objects import named, release, views_of
from p2pstore.objects.selection import Selection
from tests.p2pstore.samples import write_tree

DATA = b"x" * 3_000_000


def test_the_same_bytes_are_the_same_content_however_they_lie(tmp_path: Path) -> None:
    how = How("xxh3_128", 1 << 20, force=False)
    (tmp_path / "f").write_bytes(DATA)
    files = FileContent(tmp_path / "f")
    files.scan(how)
    made = files.hash(how, 2)
    assert (files.size, made.size) == (len(DATA), len(DATA))
    held = files.made("n", made)
    assert (held.root, [span.path for span in held.spans]) == (tmp_path / "f", [str(tmp_path / "f")])

    views = views_of(named(DATA))
    memory = MemoryContent(views)
    memory.scan(how)
    assert [c.digest for c in memory.hash(how, 1).all_chunks()] == [c.digest for c in made.all_chunks()]
    assert memory.size == len(DATA)
    assert memory.made("n", made).root is None
    release(views.values())

    incoming = Incoming(tmp_path / "kept", "n", "xxh3_128", 1 << 20)
    incoming.write(DATA)
    root, span, manifest = incoming.finish()
    came = IncomingContent(root, span, manifest)
    came.scan(how)
    assert came.hash(how, 1) is manifest
    assert [c.digest for c in manifest.all_chunks()] == [c.digest for c in made.all_chunks()]
    assert came.made("n", manifest).kept


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_tree(root, {"a": b"a", ".git/HEAD": b"b"})
    (tmp_path / "outside").write_bytes(b"c")
    (root / "link").symlink_to(tmp_path / "outside")
    told: list[str] = []
    FileContent(root).scan(How("xxh3_128", 0, force=False, note=told.append))
    assert told == [
        f"{root}: left out: .git; --all takes that, too",
        f"{root}: one file is a link to the outside, whose content is published: link",
    ]


def test_what_nobody_may_have_is_told(tmp_path: Path) -> None:
    write_tree(tmp_path / "root", {"a": b"a", "home/secret": b"b"})
    told: list[str] = []
    private = (tmp_path / "root" / "home",)
    how = How("xxh3_128", 0, force=False, note=told.append, private=private, selection=Selection(everything=True))
    FileContent(tmp_path / "root").scan(how)
    assert told == [f"{tmp_path / 'root'}: left out: home, which only this agent may read"]


@pytest.mark.parametrize(("count", "more"), [(1, ""), (SHOWN_PATHS, ""), (SHOWN_PATHS + 1, " and 1 more")])
def test_of_many_paths_a_few_are_named(count: int, more: str) -> None:
    said = some([f"p{number}" for number in range(count)])
    assert said == ", ".join(f"p{number}" for number in range(min(count, SHOWN_PATHS))) + more
