"""Memory that devices use stays where it is as long as it is registered, and not a moment longer."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.errors import LockedMemoryLimit, StorageError
from engine.memory.region import Region
from engine.transports.rdma.nics import Nics
from engine.transports.rdma.pinned import PAGE, MappedFile, Pinned
from engine.transports.rdma.verbs.fake_verbs import Fabric
from engine.transports.rdma.verbs.interface import Access

DATA = os.urandom(3 * PAGE + 100)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "f"
    path.write_bytes(DATA)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("offset", "length"), [(0, len(DATA)), (1, 1), (PAGE - 1, 2), (PAGE, PAGE), (2 * PAGE + 7, 99)]
)
def test_a_file_is_mapped_from_any_offset(file: int, offset: int, length: int) -> None:
    memory = MappedFile(file, offset, length)
    assert memory.length == length
    assert memory.readonly
    assert ctypes.string_at(memory.address, length) == DATA[offset : offset + length]
    assert memory.address % PAGE == offset % PAGE  # so that a page of the file is a page of memory
    memory.close()


def test_a_mapping_is_gone_when_it_is_closed(file: int) -> None:
    memory = MappedFile(file, 5, 10)
    name = f"{memory.address - memory.address % PAGE:x}-"
    assert name in Path("/proc/self/maps").read_text()
    memory.close()
    memory.close()
    assert name not in Path("/proc/self/maps").read_text()


def test_what_cannot_be_mapped_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="a file"):
        MappedFile(-1, 0, 10)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(StorageError, match="some/path"):
            MappedFile(fd, 0, 10, "some/path")
    finally:
        os.close(fd)


def test_each_device_is_asked_once(open_nics: Callable[..., Nics], fabric: Fabric) -> None:
    ours, theirs = open_nics("a0"), open_nics("b0")
    memory = mmap.mmap(-1, PAGE)
    pinned = Pinned(Region.of(memory), Access.LOCAL_WRITE, remote=1 << 40)
    assert pinned.lkeys() == pinned.rkeys() == {}
    pinned.register(ours)
    pinned.register([*ours, *theirs])
    assert set(pinned.lkeys()) == set(pinned.rkeys()) == {"a0", "b0"}
    assert len(set(pinned.rkeys().values())) == 2
    assert len(fabric.regions) == 2
    for each in fabric.regions.values():
        assert (each.address, each.length, each.remote) == (pinned.address, PAGE, 1 << 40)
        assert each.access == Access.LOCAL_WRITE
    pinned.close()


def test_memory_is_held_until_it_is_deregistered(open_nics: Callable[..., Nics], fabric: Fabric) -> None:
    memory = bytearray(100)
    pinned = Pinned(Region.of(memory), Access.REMOTE_READ)
    assert pinned.remote == pinned.address
    pinned.register(open_nics("a0"))
    with pytest.raises(BufferError):
        memory.append(1)
    pinned.close()
    pinned.close()
    assert not fabric.regions
    memory.append(1)


def test_the_memory_is_let_go_last(open_nics: Callable[..., Nics], fabric: Fabric) -> None:
    left: list[int] = []
    memory = bytearray(100)
    region = Region.of(memory)
    watched = Region(region.address, 100, owner=region, let_go=lambda: left.append(len(fabric.regions)))
    pinned = Pinned(watched, Access.REMOTE_READ)
    pinned.register([*open_nics("a0"), *open_nics("b0")])
    assert len(fabric.regions) == 2
    pinned.close()
    assert left == [0]


def test_a_device_that_refuses_leaves_the_others_to_be_closed(open_nics: Callable[..., Nics], fabric: Fabric) -> None:
    ours, theirs = open_nics("a0"), open_nics("b0")
    fabric.devices["b0"].pinnable = 99
    memory = bytearray(100)
    pinned = Pinned(Region.of(memory), Access.REMOTE_READ)
    with pytest.raises(LockedMemoryLimit):
        pinned.register([*ours, *theirs])
    assert set(pinned.lkeys()) == {"a0"}
    fabric.devices["b0"].pinnable = 100
    pinned.register([*ours, *theirs])
    assert set(pinned.lkeys()) == {"a0", "b0"}
    pinned.close()
    assert not fabric.regions
    memory.append(1)
