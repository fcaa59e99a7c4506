"""All of it is written, however little one call takes; a call that takes nothing is asked once."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from engine.files.writing import replace_file, write_all, write_at
from tests.refusing import RefusingFileSystem

DATA = b"0123456789"


@pytest.fixture
def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RefusingFileSystem:
    return RefusingFileSystem(tmp_path, monkeypatch)


@pytest.fixture
def fd(tmp_path: Path) -> int:
    return os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)


def test_short_writes(tmp_path: Path, refusing: RefusingFileSystem, fd: int) -> None:
    refusing.answers("write", lambda real, fd, data: real(fd, data[:3]))
    refusing.answers("pwrite", lambda real, fd, data, at: real(fd, data[:3], at))
    write_all(fd, DATA)
    write_at(fd, memoryview(DATA), 20)
    os.close(fd)
    assert (tmp_path / "f").read_bytes() == DATA + bytes(10) + DATA


def test_writes_of_nothing(refusing: RefusingFileSystem, fd: int) -> None:
    refusing.answers("write", lambda real, fd, data: 0)
    refusing.answers("pwrite", lambda real, fd, data, at: 0)
    with pytest.raises(OSError):
        write_all(fd, DATA)
    with pytest.raises(OSError):
        write_at(fd, DATA, 0)
    os.close(fd)


def test_a_file_is_replaced_whole_and_what_a_link_leads_to_is_left_alone(tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "f"
    other.write_bytes(b"somebody's")
    path.symlink_to(other)
    for data in (DATA, b""):
        replace_file(path, data)
        assert (path.read_bytes(), path.lstat().st_mode) == (data, stat.S_IFREG | 0o600)
    assert other.read_bytes() == b"somebody's"
    assert sorted(tmp_path.iterdir()) == [path, other]


@pytest.mark.parametrize("call", ["write", "replace"])
def test_a_file_that_cannot_be_replaced_stays(tmp_path: Path, refusing: RefusingFileSystem, call: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"before")
    refusing.refuses(call, errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, DATA)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
