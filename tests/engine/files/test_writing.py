"""All of it is written, however little one call takes; a call that takes nothing is asked once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.files.writing import write_all, write_at
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
