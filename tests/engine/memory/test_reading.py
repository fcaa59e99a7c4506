"""A range is read whole, in whatever pieces, or it is said whose fault it is."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.files.system import system
from engine.memory.reading import TooShort, Unreadable, read_into, read_range

DATA = bytes(range(251)) * 4


@pytest.fixture(scope="module")
def fd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path = tmp_path_factory.mktemp("reading") / "f"
    path.write_bytes(DATA)
    made = os.open(path, os.O_RDONLY)
    yield made
    os.close(made)


@given(st.integers(0, len(DATA)), st.data(), st.integers(1, 100))
def test_any_range_through_any_room(fd: int, offset: int, data: st.DataObject, size: int) -> None:
    length = data.draw(st.integers(0, len(DATA) - offset))
    buffer = memoryview(bytearray(size))
    got = bytearray()

    def room(left: int) -> memoryview:
        assert left == length - len(got)
        return buffer[:left]

    read_range(fd, offset, length, room, lambda count: got.extend(buffer[:count]))
    assert got == DATA[offset : offset + length]


def test_memory_is_filled(fd: int) -> None:
    view = memoryview(bytearray(100))
    read_into(fd, 7, view)
    assert view == DATA[7:107]


def test_a_file_that_ends_too_early(fd: int) -> None:
    with pytest.raises(TooShort):
        read_into(fd, len(DATA) - 5, memoryview(bytearray(6)))


def test_a_file_that_cannot_be_read_is_told_from_a_sink_that_fails(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(count: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught:
        read_range(fd, 0, 5, lambda left: memoryview(bytearray(left)), full)
    assert not isinstance(caught.value, Unreadable)

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(system, "preadv", broken)
    with pytest.raises(Unreadable, match="Input/output") as unreadable:
        read_into(fd, 0, memoryview(bytearray(5)))
    assert unreadable.value.errno == errno.EIO


def test_a_directory_cannot_be_read(tmp_path: Path) -> None:
    made = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(Unreadable):
            read_into(made, 0, memoryview(bytearray(1)))
    finally:
        os.close(made)
