"""Nothing goes but what was written here, whatever somebody puts in its way, before or while it goes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.files.system import system
from p2pstore.holding.copy_note import CopyNote, seal
from p2pstore.holding.deletion import Deleted, NotTheSame, check, delete
from p2pstore.objects.source import SourceTree, scan
from tests.descriptors import open_below
from tests.p2pstore.samples import write_tree

FILES = {"a": b"aaa", "b/c": b"cc", "b/d/e": b"e", "z": b""}
DIRECTORIES = ("b", "b/d", "none")


class Wrote:
    """A tree as a get left it, and what was noted of it."""

    def __init__(self, root: Path, *, own_root: bool = True) -> None:
        self.root = root
        self.tree: SourceTree = scan(root)
        self.note = CopyNote(wrote=seal(self.tree.files), real=os.path.realpath(root), own_root=own_root)

    def delete(self) -> Deleted:
        return delete(self.root, self.tree.files, DIRECTORIES, self.note)

    def check(self) -> None:
        check(self.root, self.tree.files, self.note)


@pytest.fixture
def wrote(tmp_path: Path) -> Wrote:
    (tmp_path / "up").mkdir()
    write_tree(tmp_path / "up" / "tree", FILES, ("none",))
    return Wrote(tmp_path / "up" / "tree")


def there(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}


def test_all_of_it_goes_and_nothing_beside(wrote: Wrote) -> None:
    (wrote.root.parent / "beside").write_bytes(b"x")
    wrote.check()
    assert wrote.delete() == Deleted(len(FILES), 6)
    assert not wrote.root.exists()
    assert there(wrote.root.parent) == {"beside"}


def test_a_single_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    (tmp_path / "g").write_bytes(b"abc")
    assert Wrote(tmp_path / "f").delete() == Deleted(1, 3)
    assert there(tmp_path) == {"g"}


def test_what_is_not_of_the_object_stays_and_so_do_its_directories(wrote: Wrote) -> None:
    (wrote.root / "b" / "notes").write_bytes(b"mine")
    (wrote.root / "mine").mkdir()
    assert wrote.delete() == Deleted(len(FILES), 6)
    assert there(wrote.root) == {"b/notes"}
    assert (wrote.root / "mine").is_dir(), "an empty directory of the user's"
    assert not (wrote.root / "b" / "d").exists()


def test_a_directory_that_was_there_before_stays(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", FILES, ("none",))
    assert Wrote(tmp_path / "tree", own_root=False).delete().files == len(FILES)
    assert list((tmp_path / "tree").iterdir()) == []


# What makes it stay: nothing at all is changed then.


def written_to(wrote: Wrote) -> None:
    (wrote.root / "b" / "c").write_bytes(b"other")


def written_to_with_its_times_put_back(wrote: Wrote) -> None:
    file = wrote.root / "a"
    status = file.stat()
    file.write_bytes(b"AAA")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def touched(wrote: Wrote) -> None:
    os.utime(wrote.root / "a")


def given_another_mode(wrote: Wrote) -> None:
    (wrote.root / "a").chmod(0o640)


def linked(wrote: Wrote) -> None:
    os.link(wrote.root / "a", wrote.root.parent / "hard")


def linked_and_noted_again(wrote: Wrote) -> None:
    """The agent has read it again since: its holding has the new stamps, and the seal is that of the old."""
    linked(wrote)
    wrote.tree = scan(wrote.root)


def hard_linked_before_it_was_noted(wrote: Wrote) -> None:
    linked(wrote)
    fresh = Wrote(wrote.root)
    wrote.tree, wrote.note = fresh.tree, fresh.note


def replaced_by_an_equal_file(wrote: Wrote) -> None:
    other = wrote.root.parent / "other"
    other.write_bytes(FILES["a"])
    other.replace(wrote.root / "a")


def replaced_by_a_link(wrote: Wrote) -> None:
    (wrote.root / "a").rename(wrote.root.parent / "precious")
    (wrote.root / "a").symlink_to(wrote.root.parent / "precious")


def a_directory_inside_replaced_by_a_link(wrote: Wrote) -> None:
    (wrote.root / "b").rename(wrote.root.parent / "precious")
    (wrote.root / "b").symlink_to(wrote.root.parent / "precious")


def the_root_replaced_by_a_link(wrote: Wrote) -> None:
    wrote.root.rename(wrote.root.parent / "precious")
    wrote.root.symlink_to(wrote.root.parent / "precious")


def what_is_above_replaced_by_a_link(wrote: Wrote) -> None:
    up = wrote.root.parent
    up.rename(up.parent / "precious")
    up.symlink_to(up.parent / "precious")


def gone(wrote: Wrote) -> None:
    (wrote.root / "z").unlink()


def moved_away(wrote: Wrote) -> None:
    wrote.root.rename(wrote.root.parent / "elsewhere")


def restored_from_a_backup(wrote: Wrote) -> None:
    shutil.copytree(wrote.root, wrote.root.parent / "backup")
    shutil.rmtree(wrote.root)
    (wrote.root.parent / "backup").rename(wrote.root)


def not_written_by_us(wrote: Wrote) -> None:
    wrote.note = CopyNote(real=wrote.note.real)


REASONS = [
    written_to, written_to_with_its_times_put_back, touched, given_another_mode, linked, linked_and_noted_again,
    hard_linked_before_it_was_noted, replaced_by_an_equal_file, replaced_by_a_link,
    a_directory_inside_replaced_by_a_link, the_root_replaced_by_a_link, what_is_above_replaced_by_a_link, gone,
    moved_away, restored_from_a_backup, not_written_by_us,
]  # fmt: skip


@pytest.mark.parametrize("reason", REASONS, ids=lambda each: each.__name__)
def test_it_stays(wrote: Wrote, tmp_path: Path, reason: Callable[[Wrote], None]) -> None:
    reason(wrote)
    before = there(tmp_path), {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(NotTheSame):
        wrote.check()
    with pytest.raises(NotTheSame):
        wrote.delete()
    assert (there(tmp_path), {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}) == before


def test_what_is_mounted_over_it_stays(wrote: Wrote, tmp_path: Path) -> None:
    """As when a disk goes away, and another is mounted in its place: equal names, and other files."""
    shutil.copytree(wrote.root, tmp_path / "other")
    if subprocess.run(["mount", "--bind", tmp_path / "other", wrote.root], check=False, capture_output=True).returncode:
        pytest.skip("NOTHING MOUNTED: it takes root and mount(8)")
    try:
        with pytest.raises(NotTheSame):
            wrote.delete()
        assert there(wrote.root) == set(FILES)
    finally:
        subprocess.run(["umount", wrote.root], check=True)
    assert wrote.delete().files == len(FILES)
    assert there(tmp_path / "other") == set(FILES)


def test_a_mount_that_went_away(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "x", tmp_path / "mnt"], check=False, capture_output=True).returncode:
        pytest.skip("NOTHING MOUNTED: it takes root and mount(8)")
    try:
        write_tree(tmp_path / "mnt" / "tree", FILES)
        wrote = Wrote(tmp_path / "mnt" / "tree")
    finally:
        subprocess.run(["umount", tmp_path / "mnt"], check=True)
    with pytest.raises(NotTheSame):
        wrote.delete()
    write_tree(tmp_path / "mnt" / "tree", FILES)  # what lay below it all the while
    with pytest.raises(NotTheSame):
        wrote.delete()
    assert there(tmp_path / "mnt" / "tree") == set(FILES)


# While it goes


def meanwhile(monkeypatch: pytest.MonkeyPatch, call: str, act: Callable[[Any], None]) -> None:
    """Have ``act`` happen once, just before the kernel is asked for ``call``; it hears the first argument."""
    real, done = getattr(system, call), []

    def first(*arguments: Any, **options: Any) -> Any:
        if not done:
            done.append(True)
            act(arguments[0])
        return real(*arguments, **options)

    monkeypatch.setattr(system, call, first)


def test_a_file_that_is_replaced_between_the_look_and_the_removal(
    wrote: Wrote, monkeypatch: pytest.MonkeyPatch
) -> None:
    (wrote.root.parent / "new").write_bytes(b"precious")
    meanwhile(monkeypatch, "rename", lambda _: os.replace(wrote.root.parent / "new", wrote.root / "a"))
    done = wrote.delete()
    assert done.files == 0
    assert "is not the file that this agent wrote" in done.left
    assert there(wrote.root) == set(FILES)
    assert (wrote.root / "a").read_bytes() == b"precious"


def test_and_replaced_once_more_before_it_has_its_name_back(wrote: Wrote, monkeypatch: pytest.MonkeyPatch) -> None:
    (wrote.root.parent / "new").write_bytes(b"precious")
    meanwhile(monkeypatch, "rename", lambda _: os.replace(wrote.root.parent / "new", wrote.root / "a"))
    meanwhile(monkeypatch, "link", lambda _: (wrote.root / "a").write_bytes(b"precious, too"))
    done = wrote.delete()
    kept = {path.read_bytes() for path in wrote.root.iterdir() if path.is_file()}
    assert {b"precious", b"precious, too"} <= kept
    hidden = next(path for path in wrote.root.iterdir() if path.name.endswith(".deleted"))
    assert str(hidden) in done.left


def test_a_directory_that_becomes_a_link_while_it_goes(wrote: Wrote, monkeypatch: pytest.MonkeyPatch) -> None:
    precious = wrote.root.parent / "precious"
    write_tree(precious, {"c": b"cc", "d/e": b"e"})

    def swap(name: Any) -> None:
        shutil.move(wrote.root / "b", wrote.root.parent / "moved")
        (wrote.root / "b").symlink_to(precious)

    meanwhile(monkeypatch, "unlink", swap)
    wrote.delete()
    assert there(precious) == {"c", "d/e"}


def test_a_disk_that_fails_in_the_middle(wrote: Wrote, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = system.unlink, []

    def unlink(*arguments: Any, **options: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(5, "Input/output error", "x")
        real(*arguments, **options)

    monkeypatch.setattr(system, "unlink", unlink)
    done = wrote.delete()
    assert (done.files, done.bytes) == (1, 3)
    assert done.left


def test_a_new_root_is_not_removed_for_the_old_one(wrote: Wrote, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody moves the directory away, and makes a new, empty one of its name."""

    def swap(_: Any) -> None:
        wrote.root.rename(wrote.root.parent / "moved")
        wrote.root.mkdir()

    meanwhile(monkeypatch, "rmdir", swap)
    assert wrote.delete().files == len(FILES)
    assert wrote.root.is_dir()


def test_many_directories_take_few_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pstore.holding.deletion.MAX_OPEN", 4)
    files = {f"{number}/{number}/f": b"x" for number in range(50)}
    write_tree(tmp_path / "tree", files)
    wrote = Wrote(tmp_path / "tree")
    before = open_below(tmp_path)
    most = []
    real = system.unlink

    def unlink(*arguments: Any, **options: Any) -> None:
        most.append(open_below(tmp_path))
        real(*arguments, **options)

    monkeypatch.setattr(system, "unlink", unlink)
    assert wrote.delete().files == 50
    assert max(most) - before < 12
    assert open_below(tmp_path) == before
