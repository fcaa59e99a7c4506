"""Renames replace nothing, or exactly what they should, whichever kinds of things meet."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.files.system import system
from p2pstore.objects.file_system import remove, rename_new, rename_over, words


def make_file(path: Path, text: str) -> None:
    path.write_text(text)


def make_directory(path: Path, text: str) -> None:
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "file").write_text(text)


def make_link(path: Path, text: str) -> None:
    target = path.with_name(f"target of {path.name}")
    target.mkdir()
    (target / "kept").write_text(text)
    path.symlink_to(target)


def make_dangling(path: Path, text: str) -> None:
    path.symlink_to(f"nowhere {text}")


MAKERS = {"file": make_file, "directory": make_directory, "link": make_link, "dangling": make_dangling}
Maker = Callable[[Path, str], None]


def look(path: Path) -> object:
    """What is at a path, in a form that can be compared."""
    if path.is_symlink():
        return "link", os.readlink(path)
    if path.is_dir():
        return "directory", {str(p.relative_to(path)): p.read_text() for p in path.rglob("*") if p.is_file()}
    return "file", path.read_text()


def no_renameat2(*_: object) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@pytest.fixture(params=["renameat2", "without"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the kernel's exchange, and as on a file system that has none."""
    if request.param == "without":
        monkeypatch.setattr(system, "renameat2", no_renameat2)
    return str(request.param)


@pytest.mark.parametrize("old_kind", ["file", "directory"])
def test_rename_new(kernel: str, tmp_path: Path, old_kind: str) -> None:
    old, new = tmp_path / "old é", tmp_path / "new"
    MAKERS[old_kind](old, "o")
    before = look(old)
    rename_new(old, new)
    assert look(new) == before
    assert not os.path.lexists(old)


@pytest.mark.parametrize("old_kind", ["file", "directory"])
@pytest.mark.parametrize("new_kind", sorted(MAKERS))
def test_rename_new_replaces_nothing(kernel: str, tmp_path: Path, old_kind: str, new_kind: str) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    MAKERS[old_kind](old, "o")
    MAKERS[new_kind](new, "n")
    before = look(old), look(new)
    with pytest.raises(FileExistsError):
        rename_new(old, new)
    assert (look(old), look(new)) == before


def test_rename_new_replaces_not_even_an_empty_directory(kernel: str, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    with pytest.raises(FileExistsError):
        rename_new(old, new)
    assert old.is_dir()


@pytest.mark.parametrize("old_kind", ["file", "directory"])
@pytest.mark.parametrize("new_kind", ["nothing", *sorted(MAKERS)])
def test_rename_over(kernel: str, tmp_path: Path, old_kind: str, new_kind: str) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    MAKERS[old_kind](old, "o")
    if new_kind != "nothing":
        MAKERS[new_kind](new, "n")
    before = look(old)
    rename_over(old, new)
    assert look(new) == before
    left = {p.name for p in tmp_path.iterdir()}
    assert left - {"target of new"} == {"new"}
    if new_kind == "link":
        assert (tmp_path / "target of new" / "kept").read_text() == "n"


def test_rename_over_without_exchange_touches_nobody_elses_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "renameat2", no_renameat2)
    for name in ("old", "new", "new.old"):
        make_directory(tmp_path / name, name)
    rename_over(tmp_path / "old", tmp_path / "new")
    assert look(tmp_path / "new") == ("directory", {"inner/file": "old"})
    assert look(tmp_path / "new.old") == ("directory", {"inner/file": "new.old"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "new.old"]


@pytest.mark.parametrize("rename", [rename_new, rename_over])
def test_what_is_not_there_cannot_be_renamed(kernel: str, tmp_path: Path, rename: Callable[[Path, Path], None]) -> None:
    with pytest.raises(FileNotFoundError):
        rename(tmp_path / "none", tmp_path / "new")


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_remove(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    MAKERS[kind](path, "t")
    remove(path)
    assert not os.path.lexists(path)
    if kind == "link":
        assert (tmp_path / "target of x" / "kept").read_text() == "t"
    remove(path)


def test_words() -> None:
    assert words(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/where")) == "no space left on device"
    assert words(ValueError("Embedded NUL")) == "embedded nul"
