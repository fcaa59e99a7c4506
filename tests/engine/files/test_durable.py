"""What a file system can be told to write out is written out; what it cannot ends nothing; a broken disk is told."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from engine.files.durable import FEW_FILES, sync_directory, sync_files
from engine.files.refusals import said
from tests.refusing import FSYNC_DIRECTORY, RefusingFileSystem

REFUSALS = [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.ENOTTY]


@pytest.fixture
def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RefusingFileSystem:
    return RefusingFileSystem(tmp_path, monkeypatch)


def files(root: Path, count: int) -> list[Path]:
    paths = [root / str(n) for n in range(count)]
    for path in paths:
        path.write_text("x")
    return paths


@pytest.mark.parametrize("count", [0, 1, FEW_FILES + 1])
def test_sync(tmp_path: Path, count: int) -> None:
    sync_files(files(tmp_path, count), tmp_path)
    sync_directory(tmp_path)


@pytest.mark.parametrize("number", REFUSALS)
@pytest.mark.parametrize("count", [1, FEW_FILES + 1])
def test_files_that_cannot_be_synced(tmp_path: Path, refusing: RefusingFileSystem, number: int, count: int) -> None:
    paths = files(tmp_path, count)
    refusing.refuses("fsync", number)
    sync_files(paths, tmp_path)
    assert said.of(str(tmp_path)) == (), "the whole file system was synced instead"
    refusing.refuses("syncfs", number)
    sync_files(paths, tmp_path)
    (text,) = said.of(str(tmp_path))
    assert "write a file out" in text


@pytest.mark.parametrize("number", [*REFUSALS, errno.EACCES, errno.EPERM, errno.EBADF, errno.EISDIR, errno.EROFS])
def test_a_directory_that_cannot_be_synced(tmp_path: Path, refusing: RefusingFileSystem, number: int) -> None:
    refusing.refuses(FSYNC_DIRECTORY, number)
    sync_directory(tmp_path)
    assert said.of(str(tmp_path)) == ()
    refusing.refuses("syncfs", errno.ENOSYS)
    sync_directory(tmp_path)
    (text,) = said.of(str(tmp_path))
    assert "write a directory out" in text


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EINVAL, errno.EISDIR])
def test_a_directory_that_may_be_written_and_not_read(
    tmp_path: Path, refusing: RefusingFileSystem, number: int
) -> None:
    """Mode 0300, or a file system that opens no directories."""
    paths = files(tmp_path, FEW_FILES + 1)
    refusing.answers("open", lambda real, path, *rest: refuse(number) if Path(path) == tmp_path else real(path, *rest))
    sync_directory(tmp_path)
    sync_files(paths, tmp_path)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "syncfs", FSYNC_DIRECTORY])
def test_a_fault_is_raised(tmp_path: Path, refusing: RefusingFileSystem, number: int, call: str) -> None:
    paths = files(tmp_path, FEW_FILES + 1)
    refusing.refuses(call, number)

    def sync() -> None:
        sync_files(paths[:1] if call == "fsync" else paths, tmp_path)
        sync_directory(tmp_path)

    with pytest.raises(OSError) as caught:
        sync()
    assert caught.value.errno == number
    assert caught.value.filename


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync_files([tmp_path / "none"], tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_files([tmp_path] * (FEW_FILES + 1), tmp_path / "none")


def refuse(number: int) -> int:
    raise OSError(number, os.strerror(number))
