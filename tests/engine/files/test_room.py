"""Zeros for an answer are no answer."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.files import room
from engine.files.room import allocated, free_bytes, memory_for
from tests.refusing import RefusingFileSystem


@pytest.fixture
def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RefusingFileSystem:
    return RefusingFileSystem(tmp_path, monkeypatch)


def test_room(tmp_path: Path) -> None:
    free = free_bytes(tmp_path)
    assert free is None or free > 0


def test_a_file_system_that_tells_zeros(tmp_path: Path, refusing: RefusingFileSystem) -> None:
    refusing.answers("statvfs", lambda real, path: SimpleNamespace(f_blocks=0, f_bavail=0, f_frsize=4096))
    assert free_bytes(tmp_path) is None
    refusing.answers("statvfs", lambda real, path: SimpleNamespace(f_blocks=10, f_bavail=0, f_frsize=4096))
    assert free_bytes(tmp_path) == 0


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOVERFLOW, errno.EPERM, errno.ENOTSUP])
def test_a_file_system_that_does_not_say(tmp_path: Path, refusing: RefusingFileSystem, number: int) -> None:
    refusing.refuses("statvfs", number)
    assert free_bytes(tmp_path) is None


def test_a_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        free_bytes(tmp_path / "none")


@pytest.mark.parametrize(("kind", "left"), [(0x01021994, 7), (0x858458F6, 7), (0xEF53, None)])
def test_files_in_memory_count_towards_its_limit(
    tmp_path: Path, refusing: RefusingFileSystem, monkeypatch: pytest.MonkeyPatch, kind: int, left: int | None
) -> None:
    monkeypatch.setattr(room, "memory_left", lambda: 7)
    refusing.answers("type_of", lambda real, path: kind)
    assert memory_for(tmp_path) == left
    refusing.refuses("type_of", errno.ENOSYS)
    assert memory_for(tmp_path) is None


def test_blocks(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"")
    assert allocated(path.stat()) == 0
    path.write_bytes(os.urandom(1 << 20))
    about = path.stat()
    assert allocated(about) == about.st_blocks * 512 or about.st_blocks == 0
    assert allocated(SimpleNamespace(st_size=5, st_blocks=0)) is None  # type: ignore[arg-type]
