"""An agent's secrets are in no object, whatever directory is registered and by whatever name they are reached."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2pstore.errors import BadSource
from p2pstore.objects.selection import Selection
from p2pstore.objects.source import scan
from tests.p2pstore.samples import write_tree


@pytest.mark.parametrize("everything", [False, True])
def test_what_is_private_is_never_taken(tmp_path: Path, everything: bool) -> None:
    """By whatever name: secrets and an agent's own directory, through a link or a second name too."""
    root = tmp_path / "root"
    write_tree(root, {"a": b"a", "state/mooncake/etcd/x": b"x", "keys/secret": b"s", "keys/other": b"o"})
    (root / "link").symlink_to(root / "keys" / "secret")
    os.link(root / "keys" / "secret", root / "twin")
    (tmp_path / "outside").write_bytes(b"s")
    (root / "out").symlink_to(tmp_path / "outside")
    private = [root / "state" / "mooncake", root / "keys" / "secret", tmp_path / "none", tmp_path / "outside"]
    tree = scan(root, Selection(everything=everything), private=private)
    assert list(tree.paths) == ["a", "keys/other"]
    assert sorted(tree.private) == ["keys/secret", "link", "out", "state/mooncake", "twin"]
    assert tree.foreign == ()
    for path in (*private[:2], root / "link", root / "twin"):
        with pytest.raises(BadSource, match="secrets are in it"):
            scan(path, private=private)
    below = scan(root / "state" / "mooncake" / "etcd", private=private)
    assert list(below.paths) == ["x"], "what an agent brings lies in a directory of its own"
