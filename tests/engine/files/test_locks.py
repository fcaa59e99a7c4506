"""One at a time, by whichever kind of lock there is, and within this process where there is none."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.files.locks import FileLock
from engine.files.refusals import said
from tests.refusing import RefusingFileSystem

REFUSALS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EACCES]


@pytest.fixture
def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RefusingFileSystem:
    return RefusingFileSystem(tmp_path, monkeypatch)


@pytest.fixture
def fds(tmp_path: Path) -> Iterator[list[int]]:
    opened = [os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2)]
    yield opened
    for fd in opened:
        os.close(fd)


@pytest.mark.parametrize("number", [0, *REFUSALS])
def test_two_never_hold_it(tmp_path: Path, refusing: RefusingFileSystem, fds: list[int], number: int) -> None:
    if number:
        refusing.refuses("flock", number)
    first = FileLock(fds[0], tmp_path / "lock")
    assert first.seen
    with pytest.raises(BlockingIOError):
        FileLock(fds[1], tmp_path / "lock")
    assert said.of(str(tmp_path)) == ()


@pytest.mark.parametrize("number", REFUSALS)
def test_without_any_lock_this_process_keeps_to_one(
    tmp_path: Path, refusing: RefusingFileSystem, fds: list[int], number: int
) -> None:
    refusing.refuses("flock", number)
    refusing.refuses("lock_range", number)
    path = tmp_path / "lock"
    first = FileLock(fds[0], path)
    assert not first.seen
    (text,) = said.of(str(path))
    assert "has no locks" in text
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(BlockingIOError):
        FileLock(fds[1], tmp_path / "link" / "lock")
    FileLock(fds[1], path, shared=True)
    first.let_go()
    first.let_go()
    second = FileLock(fds[1], path)
    second.let_go()


def test_a_fault_of_the_disk_is_raised(tmp_path: Path, refusing: RefusingFileSystem, fds: list[int]) -> None:
    refusing.refuses("flock", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        FileLock(fds[0], tmp_path / "lock")
    refusing.refuses("flock", errno.ENOLCK)
    refusing.refuses("lock_range", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        FileLock(fds[0], tmp_path / "lock")
