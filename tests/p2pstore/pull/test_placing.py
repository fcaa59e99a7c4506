"""However an object gets its final name, all of it is there in the end, and nothing else is gone."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2pstore.errors import DestinationExists, StorageError
from p2pstore.objects.manifest import Manifest
from p2pstore.pull import placing as module
from p2pstore.pull.file_destination import FileDestination
from tests.p2pstore.mounting import mounted, overlay
from tests.p2pstore.samples import content, manifest_of, read_tree, write_tree

FILES = {"a": content(1000), "sub/b": content(2000, 1), "sub/deep/c": b""}
TREE = manifest_of(FILES, directories=("none",))
FILE = manifest_of({"": content(500, 2)})
CONTENT = {TREE.digest: FILES, FILE.digest: {"": content(500, 2)}}


@contextmanager
def whole(path: Path, manifest: Manifest, *, force: bool = False) -> Iterator[FileDestination]:
    """A destination that has everything and is to be finished."""
    destination = FileDestination(path, manifest, "n", force=force)
    try:
        destination.recheck(threading.Event())
        for number in destination.verified.missing():
            chunk = manifest.chunk(number)
            data = CONTENT[manifest.digest][manifest.files[chunk.file].path]
            sink = destination.sink(range(number, number + 1), memoryview(bytearray(4096)))
            sink.buffer(len(data))[: len(data)] = data
            sink.filled(len(data))
            sink.close()
            destination.verified.update([number])
            destination.keep(range(number, number + 1))
        yield destination
    finally:
        destination.abort()


def got(path: Path, manifest: Manifest = TREE, *, force: bool = False) -> None:
    with whole(path, manifest, force=force) as destination:
        spans = destination.finish()
    assert [Path(span.path).stat().st_size for span in spans] == [entry.size for entry in manifest.files]
    assert read_tree(path) == CONTENT[manifest.digest]


def test_an_empty_directory_is_filled_and_stays(tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    dest.mkdir(0o750)
    inode = dest.stat().st_ino
    got(dest)
    assert (dest.stat().st_ino, dest.stat().st_mode & 0o777) == (inode, 0o750)
    assert sorted(os.listdir(tmp_path)) == ["dest"]
    assert sorted(os.listdir(dest)) == ["a", "none", "sub"]


@pytest.mark.parametrize("there", [{}, {"lost+found/x": b"kept"}, {"a": b"old", "sub": b"old", "old/er": b"old"}])
def test_a_mount_point(tmp_path: Path, there: dict[str, bytes]) -> None:
    dest = tmp_path / "dest"
    dest.mkdir()
    with mounted("tmpfs", dest, "size=4m"):
        for name, data in there.items():
            (dest / name).parent.mkdir(exist_ok=True)
            (dest / name).write_bytes(data)
        with whole(dest, TREE, force="a" in there) as destination:
            destination.finish()
        kept = {name: data for name, data in there.items() if name.startswith("lost+found")}
        assert read_tree(dest) == {**FILES, **kept}
        assert os.listdir(tmp_path) == ["dest"]
        assert len(os.listdir(dest)) == 3 + len(kept)


@pytest.mark.parametrize("manifest", [TREE, FILE], ids=["directory", "file"])
def test_a_directory_of_a_lower_layer(tmp_path: Path, manifest: Manifest) -> None:
    write_tree(tmp_path / "lower", {"models/m/a": b"old", "models/m/sub/x": b"old", "models/m/gone": b"old"})
    with overlay(tmp_path) as merged:
        dest = merged / "models" / "m"
        with pytest.raises(OSError, match="cross-device"):
            os.rename(dest, merged / "elsewhere")
        got(dest, manifest, force=True)
        assert os.listdir(dest.parent) == ["m"]


def test_what_appears_meanwhile_in_what_is_filled(tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    dest.mkdir()
    with whole(dest, TREE) as destination:
        (dest / "mine").write_bytes(b"precious")
        with pytest.raises(DestinationExists):
            destination.finish()
    (dest / "mine").unlink()
    got(dest)


def test_a_destination_that_goes_meanwhile(tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    dest.mkdir()
    with whole(dest, TREE) as destination:
        shutil.rmtree(dest)
        with pytest.raises(StorageError, match="moved or removed"):
            destination.finish()
    assert not dest.exists()
    parent = tmp_path / "parent"
    parent.mkdir()
    with whole(parent / "dest", TREE) as destination:
        parent.rename(tmp_path / "moved")
        parent.mkdir()
        with pytest.raises(StorageError, match="moved or removed"):
            destination.finish()
    assert list(parent.iterdir()) == []


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("force", [False, True])
def test_a_get_that_is_ended_while_it_fills_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, force: bool
) -> None:
    """Also without --force: what is there by then is the object's."""
    dest = tmp_path / "dest"
    dest.mkdir()
    if force:
        write_tree(dest / "sub", {"old": b"old"})
        (dest / "a").write_bytes(b"old")
    left = [at]

    def dies(call: object) -> object:
        def moved(old: Path, new: Path) -> None:
            if not left[0]:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(new))
            left[0] -= 1
            call(old, new)  # type: ignore[operator]

        return moved

    monkeypatch.setattr(module, "rename_new", dies(module.rename_new))
    monkeypatch.setattr(module.system, "replace", dies(os.replace))
    monkeypatch.setattr(module, "rename_over", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "cross-device")))
    with whole(dest, TREE, force=force) as destination, pytest.raises(StorageError, match="input/output error"):
        destination.finish()
    assert sum((dest / name).exists() for name in ("a", "none", "sub")) >= at
    monkeypatch.undo()
    got(dest)
    assert sorted(os.listdir(dest)) == ["a", "none", "sub"]
    assert os.listdir(tmp_path) == ["dest"]
