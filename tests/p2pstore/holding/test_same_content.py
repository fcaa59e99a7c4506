"""What lies at a path is the object to the last byte and directory, or it is not."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from p2pstore.errors import Interrupted
from p2pstore.holding import same_content as same_content_module
from p2pstore.holding.same_content import same_content, same_files
from p2pstore.objects import file_system as files_module
from p2pstore.objects import manifest as manifest_module
from p2pstore.objects import manifest_reader
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.selection import Selection
from tests.p2pstore.samples import KIB, content, manifest_of, write_tree

CHUNK = 4 * KIB
FILES = {"a": content(3 * CHUNK + 1), "b/c d/é": content(CHUNK, 2), "b/empty": b"", "z": content(7, 3)}
TREE = manifest_of(FILES, CHUNK, ("b/x/y", "none"))
FILE = manifest_of({"": content(5 * CHUNK + 9, 4)}, CHUNK)
NOTHING = manifest_of({"": b""}, CHUNK)
CONTENT = {TREE.digest: FILES, FILE.digest: {"": content(5 * CHUNK + 9, 4)}, NOTHING.digest: {"": b""}}
EACH = pytest.mark.parametrize("manifest", [TREE, FILE, NOTHING], ids=["directory", "file", "empty file"])


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "MIN_CHUNK_SIZE", CHUNK)
    monkeypatch.setattr(manifest_reader, "MIN_CHUNK_SIZE", CHUNK)


@EACH
def test_same_content(tmp_path: Path, manifest: Manifest) -> None:
    root = tmp_path / "there"
    write_tree(root, CONTENT[manifest.digest], manifest.directories)
    spans = same_content(root, manifest)
    assert spans is not None
    assert [s.size for s in spans] == [f.size for f in manifest.files]


def test_other_content(tmp_path: Path) -> None:
    root = tmp_path / "there"

    def after(change: str) -> object:
        files_module.remove(root)
        write_tree(root, FILES, TREE.directories)
        if change == "byte":
            (root / "a").write_bytes(b"?" + FILES["a"][1:])
        elif change == "size":
            (root / "z").write_bytes(FILES["z"] + b"x")
        elif change == "more":
            (root / "more").touch()
        elif change == "fewer":
            (root / "z").unlink()
        elif change == "no directory":
            (root / "none").rmdir()
        elif change == "directory":
            (root / "more").mkdir()
        elif change == "link":
            (root / "more").symlink_to("a")
        elif change == "git":
            write_tree(root / ".git", {"HEAD": b""})
        elif change == "renamed":
            (root / "z").rename(root / "y")
        return same_content(root, TREE)

    assert after("nothing")
    assert after("git")  # it would be left out when this were registered
    for change in ("byte", "size", "more", "fewer", "no directory", "directory", "link", "renamed"):
        assert after(change) is None, change
    assert same_content(tmp_path / "none", TREE) is None
    assert same_content(root / "a", TREE) is None
    assert same_content(root, FILE) is None


def test_comparing_what_changes_is_no_cancel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "there"
    write_tree(root, CONTENT[FILE.digest])
    scan = same_content_module.scan

    def and_then_change(path: Path, *selection: Selection) -> object:
        tree = scan(path, *selection)
        os.utime(path, ns=(1, 1))
        return tree

    monkeypatch.setattr(same_content_module, "scan", and_then_change)
    cancelled = threading.Event()
    assert same_content(root, FILE, cancelled) is None
    assert not cancelled.is_set()
    monkeypatch.setattr(same_content_module, "scan", scan)
    cancelled.set()
    with pytest.raises(Interrupted):
        same_content(root, FILE, cancelled)


def test_what_the_object_has_need_not_be_all_that_is_there(tmp_path: Path) -> None:
    """A restart finds again what was registered with patterns."""
    root = tmp_path / "there"
    write_tree(root, {**FILES, "more": b"x"})
    assert same_content(root, TREE) is None
    spans = same_files(root, TREE)
    assert spans is not None
    assert [span.path for span in spans] == [str(root / f.path) for f in TREE.files]
    (root / "a").write_bytes(b"?" + FILES["a"][1:])
    assert same_files(root, TREE) is None
    (root / "a").unlink()
    assert same_files(root, TREE) is None
    (root / "a").symlink_to(tmp_path / "blob")
    (tmp_path / "blob").write_bytes(FILES["a"])
    assert same_files(root, TREE)
    assert same_files(tmp_path / "none", TREE) is None
    assert same_files(root / "more", FILE) is None
