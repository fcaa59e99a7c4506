"""A partial form has the object's directories and files and nothing else, and all of it is on disk in the end."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.files.system import system
from p2pstore.errors import ForeignFile, Interrupted, StorageError
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.steps import Steps
from p2pstore.pull import part_tree
from p2pstore.pull.part_files import PartFiles
from tests.p2pstore.samples import manifest_of

FILES = {"a/b/x": b"x" * 10, "a/y": b"y" * 20, "z": b""}
TREE = manifest_of(FILES, 1 << 20)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "part"


@pytest.fixture
def files(part: Path) -> Iterator[PartFiles]:
    with closing(PartFiles(part, TREE)) as made:
        yield made


def lay_out(files: PartFiles, part: Path, shape: Manifest = TREE, *, fresh: bool = True) -> None:
    part_tree.make_directories(part, shape, fresh=fresh)
    files.open_root()
    part_tree.make_files(files, shape, Steps(), threading.Event(), fresh=fresh)


def test_all_of_it_is_made_at_its_size(files: PartFiles, part: Path) -> None:
    lay_out(files, part)
    assert {str(path.relative_to(part)): path.stat().st_size for path in part.rglob("*") if path.is_file()} == {
        name: len(data) for name, data in FILES.items()
    }


def test_what_is_there_stays_where_it_is_not_fresh(files: PartFiles, part: Path) -> None:
    lay_out(files, part)
    (part / "a" / "y").write_bytes(b"!" * 20)
    (part / "z").unlink()
    lay_out(files, part, fresh=False)
    assert (part / "a" / "y").read_bytes() == b"!" * 20
    assert (part / "z").read_bytes() == b""


@pytest.mark.parametrize("kind", ["file", "directory", "link to a directory"])
def test_what_is_not_the_objects_is_refused(files: PartFiles, part: Path, kind: str) -> None:
    lay_out(files, part)
    part_tree.refuse_foreign(part, TREE)
    if kind == "file":
        foreign = part / "a" / "mine"
        foreign.write_bytes(b"")
    elif kind == "directory":
        foreign = part / "mine"
        foreign.mkdir()
    else:
        foreign = part / "a" / "b"
        (foreign / "x").unlink()
        foreign.rmdir()
        foreign.symlink_to(part)
    with pytest.raises(ForeignFile) as caught:
        part_tree.refuse_foreign(part, TREE)
    assert caught.value.fields["path"] == foreign
    with pytest.raises(ForeignFile):
        part_tree.make_directories(part, TREE, fresh=False)


def test_names_that_the_file_system_takes_for_one(files: PartFiles, part: Path) -> None:
    part.mkdir()
    (part / "a").mkdir()
    with pytest.raises(StorageError, match="upper from lower case"):
        part_tree.make_directories(part, TREE, fresh=True)


def test_a_link_in_place_of_a_directory_is_not_followed(part: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    part.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        part_tree.make_directories(part, TREE, fresh=False)


def test_making_files_can_be_cancelled(files: PartFiles, part: Path) -> None:
    part_tree.make_directories(part, TREE, fresh=True)
    files.open_root()
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Interrupted):
        part_tree.make_files(files, TREE, Steps(), cancelled, fresh=True)


def test_in_the_end_modes_are_set_and_every_name_is_on_disk(
    files: PartFiles, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(files, part)
    synced: list[Path] = []
    monkeypatch.setattr(part_tree, "sync_directory", synced.append)
    part_tree.make_durable(files, TREE, part, part.parent, Steps())
    assert {os.stat(part / entry.path).st_mode & 0o777 for entry in TREE.files} == {e.mode for e in TREE.files}
    assert synced == [part / "a", part / "a" / "b", part], "the innermost need not come first: all are on disk"
    (part / "mine").write_bytes(b"")
    with pytest.raises(ForeignFile):
        part_tree.make_durable(files, TREE, part, part.parent, Steps())


def test_a_file_system_without_modes_is_content_with_the_right_one(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(path: Any, _: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), os.fspath(path))

    part.write_bytes(b"")
    part.chmod(0o640)
    monkeypatch.setattr(system, "chmod", refuses)
    part_tree._set_mode(part, 0o640)
    part_tree._set_mode(part, 0o600)  # it is said, and goes on


def test_paths_are_made_when_they_are_asked_for(files: PartFiles, part: Path) -> None:
    paths = part_tree._Paths(files, len(TREE.files))
    assert list(paths) == [files.path(number) for number in range(len(TREE.files))]
    assert paths[1:] == list(paths)[1:]
    assert paths[-1] == files.path(len(TREE.files) - 1)
    with pytest.raises(IndexError):
        paths[len(TREE.files)]
