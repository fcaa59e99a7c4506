"""Calls that Python's library lacks do what their manual pages say, and raise what the kernel says."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from engine.files.system import EXCHANGE, NOREPLACE, system


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 65536)
    return path


def test_a_lock_of_a_range_belongs_to_the_open_file(file: Path) -> None:
    one, two = (os.open(file, os.O_RDWR) for _ in range(2))
    try:
        system.lock_range(one)
        with pytest.raises(OSError) as caught:
            system.lock_range(two)
        assert caught.value.errno in {errno.EAGAIN, errno.EACCES}
        os.close(os.open(file, os.O_RDONLY))  # which would end a lock that belongs to the process
        with pytest.raises(OSError):
            system.lock_range(two, shared=True)
    finally:
        os.close(one)
    system.lock_range(two)
    os.close(two)


def test_renameat2(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_text("1")
    two.write_text("2")
    with pytest.raises(FileExistsError):
        system.renameat2(one, two, NOREPLACE)
    system.renameat2(one, two, EXCHANGE)
    assert (one.read_text(), two.read_text()) == ("2", "1")
    with pytest.raises(FileNotFoundError):
        system.renameat2(tmp_path / "none", two, NOREPLACE)


def test_a_hole_is_punched(file: Path) -> None:
    fd = os.open(file, os.O_RDWR)
    try:
        try:
            system.punch(fd, 4096, 8192)
        except OSError as error:
            pytest.skip(f"no holes can be punched here: {error}")
        assert os.pread(fd, 8192, 4096) == bytes(8192)
        assert os.fstat(fd).st_size == 65536
    finally:
        os.close(fd)


def test_syncfs_and_the_type(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    system.syncfs(fd)
    os.close(fd)
    with pytest.raises(OSError):
        system.syncfs(fd)
    assert system.type_of("/proc") == 0x9FA0
    with pytest.raises(FileNotFoundError):
        system.type_of(str(tmp_path / "none"))


def test_a_mapping(file: Path) -> None:
    fd = os.open(file, os.O_RDONLY)
    try:
        system.unmap(system.map_shared(fd, 0, 4096), 4096)
        with pytest.raises(OSError):
            system.map_shared(-1, 0, 4096)
    finally:
        os.close(fd)


def test_cloning_to_what_is_no_file(file: Path) -> None:
    fd = os.open(file, os.O_RDONLY)
    try:
        with pytest.raises(OSError):
            system.clone(fd, 0, fd, 0, 4096)
    finally:
        os.close(fd)
