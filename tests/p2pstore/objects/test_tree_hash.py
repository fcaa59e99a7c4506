"""Small files are hashed as large ones are: each once, and none that is not what it was. More is in ``test_source``."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from engine.files.system import system
from p2pstore.errors import SourceChanged, StorageError
from p2pstore.objects import tree_hash as module
from p2pstore.objects.source import scan
from p2pstore.objects.tree_hash import hash_tree
from tests.p2pstore.samples import MIB, content, manifest_of, write_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_tree(tmp_path / "tree", {"a": b"1", "b/c": b"22", "b/empty": b""})
    return tmp_path / "tree"


def test_many_small_files_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALL_FILES", 3)
    files = {f"{'b' if n % 2 else 'a.'}/{n % 7}-{n}": content(n * 100, n) for n in range(20)}
    write_tree(tmp_path / "t", {**files, "b/large": content(MIB)})
    found = hash_tree(scan(tmp_path / "t"), hash_name="xxh3_128", threads=2)
    assert found == manifest_of({**files, "b/large": content(MIB)}, found.chunk_size)
    assert list(found.columns.paths) == sorted([*files, "b/large"])


def test_a_small_file_of_which_a_call_brings_less_is_read_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = hash_tree(scan(root), hash_name="xxh3_128")
    monkeypatch.setattr(system, "pread", lambda _, count, __: bytes(count - 1))
    assert hash_tree(scan(root), hash_name="xxh3_128") == whole


def test_a_small_file_that_cannot_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    tree = scan(root)
    for call in ("pread", "preadv"):
        monkeypatch.setattr(system, call, broken)
    with pytest.raises(StorageError, match="input/output"):
        hash_tree(tree, hash_name="xxh3_128")


@pytest.mark.parametrize("name", ["a", "b/c", "b/empty"])
def test_a_small_file_that_is_written_once_it_was_read(root: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    tree = scan(root)
    close = system.close

    def and_write(descriptor: int) -> None:
        close(descriptor)
        os.utime(root / name, ns=(1, 1))

    monkeypatch.setattr(system, "close", and_write)
    with pytest.raises(SourceChanged, match=r"changed|written"):
        hash_tree(tree, hash_name="xxh3_128")
