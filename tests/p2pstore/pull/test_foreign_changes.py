"""What others put into a partial form, or change in it, gets under no final name."""

from __future__ import annotations

import itertools
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2pstore.errors import (
    ForeignFile,
    PartChanged,
    StorageError,
)
from p2pstore.objects import file_system as files_module
from p2pstore.objects.manifest import Manifest
from p2pstore.pull import file_sink
from p2pstore.pull import part_tree as module
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.part_files import PartFiles
from p2pstore.pull.workplace import work_name
from tests.p2pstore.pull.destinations import (
    CONTENT,
    EACH,
    FILE,
    FILES,
    TREE,
    feed,
    fill,
    given_up,
    leftovers,
    path,
    resumed,
    small_chunks,
    whole,
)
from tests.p2pstore.samples import manifest_of, read_tree, write_tree

__all__ = ["path", "small_chunks"]


@pytest.mark.parametrize("stray", ["stray", "sub/stray", "dir/"])
def test_what_somebody_puts_into_the_partial_form_gets_under_no_final_name(path: Path, stray: str) -> None:
    manifest = manifest_of({"a": b"1", "sub/b": b"2"}, 1 << 20)
    with given_up(FileDestination(path, manifest, "n")) as destination:
        for number in range(manifest.chunks):
            feed(destination, range(number, number + 1), [b"1", b"2"][number])
            destination.verified.add(number)
        foreign = destination.part / stray
        if stray.endswith("/"):
            foreign.mkdir()
        else:
            foreign.write_bytes(b"mine")
        with pytest.raises(ForeignFile, match=str(foreign)):
            destination.finish()
        assert not path.exists()
    with pytest.raises(ForeignFile):
        FileDestination(path, manifest, "n")
    (foreign.rmdir if stray.endswith("/") else foreign.unlink)()
    with given_up(FileDestination(path, manifest, "n")) as destination:
        destination.recheck(threading.Event())
        destination.finish()
    assert read_tree(path) == {"a": b"1", "sub/b": b"2"}


@EACH
@pytest.mark.parametrize("kind", ["file", "directory", "link"])
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["dest.part", work_name("dest")])
def test_what_others_call_like_a_partial_form_is_spared(
    path: Path, manifest: Manifest, kind: str, force: bool, name: str
) -> None:
    stranger = path.with_name(name)
    if kind == "file":
        stranger.write_bytes(b"somebody's")
    elif kind == "directory":
        write_tree(stranger, {"part": b"somebody's", "x": b"somebody's"})
    else:
        stranger.symlink_to("somewhere")
    destination = FileDestination(path, manifest, "n", force=force)
    fill(destination)
    destination.finish()
    assert read_tree(path) == CONTENT[manifest.digest]
    assert leftovers(path) == {name}
    if kind == "directory":
        assert read_tree(stranger) == {"part": b"somebody's", "x": b"somebody's"}
    else:
        assert os.readlink(stranger) == "somewhere" if kind == "link" else stranger.read_bytes() == b"somebody's"


def test_links_inside_the_partial_form_are_not_followed(path: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write_tree(outside, {"é": b"precious", "z": b"precious"})
    links = (("b/c d", outside, ForeignFile), ("z", outside / "z", StorageError), ("none", outside, ForeignFile))
    for name, target, refused in links:
        destination = FileDestination(path, TREE, "n")
        destination.abort()
        files_module.remove(destination.part / name)
        (destination.part / name).symlink_to(target)
        with pytest.raises(refused):
            FileDestination(path, TREE, "n")
        (destination.part / name).unlink()
    assert read_tree(outside) == {"é": b"precious", "z": b"precious"}
    assert all((outside / name).stat().st_mode & 0o777 == 0o644 for name in ("é", "z"))


def test_a_directory_that_was_moved_and_linked_to_gets_under_no_final_name(path: Path) -> None:
    """Its files are those that were written, and lie elsewhere."""
    with given_up(FileDestination(path, TREE, "n")) as destination:
        fill(destination)
        moved = path.with_name("moved")
        (destination.part / "b").rename(moved)
        (destination.part / "b").symlink_to(moved)
        with pytest.raises(ForeignFile, match=str(destination.part / "b")):
            destination.finish()
    assert not path.exists()


@EACH
def test_a_link_in_the_place_of_the_partial_form_is_not_followed(path: Path, manifest: Manifest) -> None:
    outside = path.with_name("outside")
    if manifest.kind == "directory":
        outside.mkdir()
    else:
        outside.write_bytes(b"precious")
    destination = FileDestination(path, manifest, "n")
    destination.abort()
    files_module.remove(destination.part)
    destination.part.symlink_to(outside)
    with pytest.raises(StorageError):
        FileDestination(path, manifest, "n")
    assert outside.is_dir() or outside.read_bytes() == b"precious"
    assert outside.is_file() or not list(outside.iterdir())


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"?" * 100)


def overwrite_and_put_the_times_back(path: Path) -> None:
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(path: Path) -> None:
    os.truncate(path, 10)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"?" * path.stat().st_size)
    other.replace(path)


def map_and_change(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[:100] = b"?" * 100


CHANGES = [overwrite, overwrite_and_put_the_times_back, cut, replace, map_and_change]


@pytest.mark.parametrize("manifest", [TREE, FILE], ids=["directory", "file"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_what_others_write_meanwhile_gets_under_no_final_name(
    path: Path, manifest: Manifest, change: Callable[[Path], None]
) -> None:
    """While the file is open and we write on, so that its times tell nothing."""
    number = 0
    with given_up(FileDestination(path, manifest, "n")) as destination:
        feed(destination, range(2))
        destination.files.borrow(number)
        change(destination.file_path(number))
        feed(destination, range(2, manifest.chunks))
        destination.files.give_back(number)
        assert destination.verified.full
        with pytest.raises(PartChanged) as caught:
            destination.finish()
        assert caught.value.fields["path"] == destination.file_path(number)
    assert not path.exists()
    with given_up(resumed(path, manifest)) as destination:
        missing = list(destination.verified.missing())
        assert 0 in missing
        for chunk in missing:
            feed(destination, range(chunk, chunk + 1))
        destination.finish()
    assert read_tree(path) == CONTENT[manifest.digest]
    assert leftovers(path) == set()


def test_what_was_cut_short_before_blocks_are_shared_gets_under_no_final_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To share the last blocks makes the file as long as it was."""

    def clone(source: int, offset: int, length: int, target: int, target_offset: int) -> bool:
        return os.pwrite(target, os.pread(source, length, offset), target_offset) == length

    monkeypatch.setattr(file_sink, "clone_range", clone)
    last = FILE.chunk(FILE.chunks - 1)
    source = path.with_name("source")
    source.write_bytes(whole(FILE))
    with given_up(FileDestination(path, FILE, "n")) as destination, source.open("rb") as there:
        destination.files.borrow(0)
        feed(destination, range(last.number))
        cut(destination.part)
        sink = destination.sink(range(last.number, FILE.chunks), memoryview(bytearray(100)))
        assert sink.clone(there.fileno(), last.offset, last.length) == last.length
        sink.close()
        destination.verified.add(last.number)
        destination.files.give_back(0)
        with pytest.raises(PartChanged):
            destination.finish()
    assert not path.exists()


@pytest.mark.parametrize("change", [Path.touch, lambda path: os.link(path, path.parent.parent / "kept")])
def test_what_is_still_right_is_hashed_again_and_no_more(path: Path, change: Callable[[Path], None]) -> None:
    with given_up(FileDestination(path, FILE, "n")) as destination:
        fill(destination)
        change(destination.part)
        destination.finish()
    assert read_tree(path) == CONTENT[FILE.digest]


@pytest.mark.parametrize("step", ["_is_right", "_clear"])
@pytest.mark.parametrize("when", ["in the end", "while it is written out"])
def test_what_others_write_while_it_is_hashed_again_gets_under_no_final_name(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    """The chunk that they write to has just been found right."""
    with given_up(FileDestination(path, FILE, "n")) as destination:
        fill(destination)
        do, sync = getattr(FileDestination, step), module.sync_files

        def then_written_to(*args: Any) -> object:
            done = do(*args)
            if args[1]:  # a chunk, or files that were in doubt
                overwrite(destination.part)
                os.utime(destination.part, ns=(1, 1))
            return done

        def synced(*args: Any) -> None:
            sync(*args)
            os.utime(destination.part, ns=(2, 2))

        if when == "in the end":
            os.utime(destination.part, ns=(2, 2))
        else:
            monkeypatch.setattr(module, "sync_files", synced)
        monkeypatch.setattr(FileDestination, step, then_written_to)
        with pytest.raises(PartChanged):
            destination.finish()
    assert not path.exists()


def test_without_inode_numbers_that_stay_all_is_hashed_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on file systems in user space: a number of its own at each look."""
    counter = itertools.count(1)

    def number(_: os.stat_result) -> int:
        return next(counter)

    monkeypatch.setattr(PartFiles, "_inode", staticmethod(number))
    with given_up(FileDestination(path, TREE, "n")) as destination:
        fill(destination)
        destination.finish()
    assert read_tree(path) == FILES


def test_a_resumed_get_writes_into_no_file_that_has_another_name(path: Path) -> None:
    with given_up(FileDestination(path, FILE, "n")) as destination:
        feed(destination, range(2))
        os.link(destination.part, path.with_name("backup"))
    before = path.with_name("backup").read_bytes()
    with given_up(resumed(path, FILE)) as destination:
        fill(destination)
        destination.finish()
    assert path.with_name("backup").read_bytes() == before
    assert read_tree(path) == CONTENT[FILE.digest]
