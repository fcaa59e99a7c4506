"""What a directory can hold is found out by trying, and nothing is left of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from engine.files.abilities import abilities_of
from tests.refusing import FSYNC_DIRECTORY, RefusingFileSystem


@pytest.fixture
def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RefusingFileSystem:
    return RefusingFileSystem(tmp_path, monkeypatch)


def test_a_disk_can_hold_everything(tmp_path: Path) -> None:
    long = tmp_path / ("d" * 100) / ("e" * 100)
    long.mkdir(parents=True)
    for directory in (tmp_path, long):
        directory.chmod(0o700)
        can = abilities_of(directory)
        assert can.databases
        assert can.sockets
        assert can.private
        assert not can.mapped_owner
        assert can.why == ""
    assert os.listdir(long) == []


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EIO])
@pytest.mark.parametrize(
    ("call", "ability"),
    [
        ("flock", "locks"),
        ("lock_range", "locks"),
        ("map_shared", "mappings"),
        (FSYNC_DIRECTORY, "directory_syncs"),
    ],
)
def test_what_is_refused(tmp_path: Path, refusing: RefusingFileSystem, call: str, ability: str, number: int) -> None:
    refusing.refuses(call, number)
    can = abilities_of(tmp_path)
    assert not getattr(can, ability)
    assert not can.databases
    assert os.strerror(number).lower() in can.why
    assert os.listdir(tmp_path) == []


def test_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.files.system import system

    def refuse(sock: object, address: str) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(system, "bind", refuse)
    assert not abilities_of(tmp_path).sockets
    monkeypatch.setattr(system, "bind", lambda sock, address: Path(address).touch())
    assert "no socket" in abilities_of(tmp_path).why
    assert os.listdir(tmp_path) == []


def test_that_there_is_no_room_says_nothing(tmp_path: Path, refusing: RefusingFileSystem) -> None:
    refusing.refuses("pwrite", errno.ENOSPC)
    refusing.refuses(FSYNC_DIRECTORY, errno.EDQUOT)
    assert abilities_of(tmp_path).databases


def test_a_directory_that_others_can_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    assert not abilities_of(tmp_path).private


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        abilities_of(tmp_path / "none")
