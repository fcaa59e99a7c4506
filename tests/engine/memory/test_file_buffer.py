"""Files as registered buffers that peers may write."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from engine.errors import StorageError, UsageError
from engine.files.system import system
from engine.memory.file_buffer import OpenFileBuffer


def test_a_range_is_read_sent_and_written(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    buffer = OpenFileBuffer("f", path, writable=True, offset=2, length=6)
    got = bytearray(3)
    buffer.read_into(1, memoryview(got))
    assert got == b"345"
    buffer.write_from(4, memoryview(b"xy"))
    assert path.read_bytes() == b"012345xy89"
    left, right = socket.socketpair()
    with left, right:
        assert buffer.send(left, 4, 2) == 2
        assert right.recv(10) == b"xy"
    assert buffer.view(0, 1) is None
    assert buffer.file_run(0, 1) is None
    buffer.close()
    buffer.close()


def test_a_read_only_file_is_handed_out_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    buffer = OpenFileBuffer("f", path, offset=4)
    assert (buffer.length, buffer.writable) == (6, False)
    with pytest.raises(UsageError):
        buffer.write_from(0, memoryview(b"x"))
    run = buffer.file_run(1, 2)
    assert run is not None
    assert os.pread(run.fd, run.length, run.offset) == b"56"
    with pytest.raises(OSError, match="Bad file"):
        os.pwrite(run.fd, b"x", 0)
    os.close(run.fd)
    buffer.close()
    assert path.read_bytes() == b"0123456789"


def test_a_writable_file_is_made_as_long_as_it_must_be(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"ab")
    OpenFileBuffer("f", path, writable=True, offset=1, length=4).close()
    assert path.read_bytes() == b"ab\0\0\0"


def test_a_file_system_that_takes_nothing_is_not_asked_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    buffer = OpenFileBuffer("f", path, writable=True)
    left = [1, 0]
    monkeypatch.setattr(system, "pwrite", lambda fd, data, at: os.pwrite(fd, data[: left.pop(0)], at))
    with pytest.raises(StorageError, match="Input/output error"):
        buffer.write_from(0, memoryview(b"xyz"))
    buffer.close()


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (10, None), (-1, 2), (3, 8), (11, None)])
def test_ranges_that_do_not_exist(tmp_path: Path, offset: int, length: int | None) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UsageError):
        OpenFileBuffer("f", path, offset=offset, length=length)
    assert len(os.listdir("/proc/self/fd")) <= before
    assert path.read_bytes() == b"0123456789"


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        OpenFileBuffer("f", tmp_path / "absent")
    with pytest.raises(UsageError):
        OpenFileBuffer("f", tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError):
        OpenFileBuffer("f", tmp_path / "fifo", length=1)


def test_a_file_that_becomes_shorter(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    buffer = OpenFileBuffer("f", path)
    path.write_bytes(b"01")
    with pytest.raises(StorageError, match="shorter"):
        buffer.read_into(0, memoryview(bytearray(10)))
    left, right = socket.socketpair()
    with left, right, pytest.raises(StorageError, match="shorter"):
        buffer.send(left, 5, 5)
    buffer.close()
