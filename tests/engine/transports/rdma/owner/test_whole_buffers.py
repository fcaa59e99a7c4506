"""What an engine offers whole: which buffers can be, with which rights, under which addresses, and until when."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import LockedMemoryLimit, TransportUnavailable, UsageError
from engine.memory.buffers import Buffer, FilesBuffer, MemoryBuffer
from engine.memory.file_spans import FileSpan
from engine.memory.joined_buffer import JoinedBuffer
from engine.protocol.segment import BufferDescriptor
from engine.transports.rdma.nics import Nics
from engine.transports.rdma.owner.whole_buffers import WholeBuffers
from engine.transports.rdma.verbs.fake_verbs import Fabric
from engine.transports.rdma.verbs.interface import Access

AT = 1 << 40


@pytest.fixture
def whole(open_nics: Callable[..., Nics]) -> WholeBuffers:
    return WholeBuffers(open_nics("a0", "b0"))


def add(whole: WholeBuffers, buffer: Buffer, address: int = AT) -> None:
    whole.add(buffer, whole.memory(buffer), address)


def described(address: int, length: int = 100) -> tuple[BufferDescriptor, ...]:
    return (BufferDescriptor("m", address, length),)


@pytest.mark.parametrize(
    ("memory", "writable", "access"),
    [
        (b"x" * 100, False, Access.REMOTE_READ),
        (bytearray(100), False, Access.REMOTE_READ | Access.LOCAL_WRITE),
        (bytearray(100), True, Access.REMOTE_READ | Access.LOCAL_WRITE | Access.REMOTE_WRITE),
    ],
)
def test_devices_may_do_what_the_owner_said(
    whole: WholeBuffers, fabric: Fabric, memory: bytes | bytearray, writable: bool, access: Access
) -> None:
    """``LOCAL_WRITE`` is for our own reads into it, which need no word of the owner's."""
    add(whole, MemoryBuffer("m", memory, writable=writable))
    assert [each.access for each in fabric.regions.values()] == [access, access]
    assert {each.remote for each in fabric.regions.values()} == {AT}
    whole.close()


def test_the_descriptor_has_a_key_for_each_device_in_their_order(whole: WholeBuffers, fabric: Fabric) -> None:
    buffer = MemoryBuffer("m", b"x" * 100)
    add(whole, buffer)
    (found,) = whole.described(described(AT))
    assert [device.name for device in whole.devices] == ["a0", "b0"]
    assert len(set(found.rkeys)) == 2
    pinned = whole.find(buffer)
    assert pinned is not None
    assert list(found.rkeys) == list(pinned.rkeys().values())
    assert set(found.rkeys) == set(fabric.regions)
    assert set(whole.matrix) == {"cpu:0"}
    whole.close()


def test_what_is_not_offered_is_not_described(whole: WholeBuffers) -> None:
    """A buffer that is registered this moment stands in the segment before its keys are known."""
    add(whole, MemoryBuffer("m", b"x" * 100))
    assert whole.described(described(AT + 4096)) == ()
    whole.withdraw(AT)
    assert whole.described(described(AT)) == ()


def test_a_file_that_is_read_only_is_offered_from_its_pages(
    whole: WholeBuffers, fabric: Fabric, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(b"y" * 5000)
    buffer = FilesBuffer("f", [FileSpan(str(tmp_path / "f"), 5000)])
    add(whole, buffer)
    region = next(iter(fabric.regions.values()))
    assert (region.length, region.access) == (5000, Access.REMOTE_READ)
    assert ctypes.string_at(region.address, 5000) == b"y" * 5000
    whole.close()
    buffer.close()


def test_what_does_not_lie_in_one_piece_cannot_be_offered(whole: WholeBuffers, fabric: Fabric, tmp_path: Path) -> None:
    for name in "fg":
        (tmp_path / name).write_bytes(b"y" * 5000)
    files = FilesBuffer("files", [FileSpan(str(tmp_path / name), 5000) for name in "fg"])
    joined = JoinedBuffer("joined", [memoryview(b"x" * 10), memoryview(b"y" * 10)])
    for buffer, words in ((files, "only one file"), (joined, "not in one piece")):
        with pytest.raises(UsageError, match=words):
            whole.memory(buffer)
    assert not fabric.regions
    files.close()


def test_memory_that_cannot_be_pinned_is_let_go(whole: WholeBuffers, fabric: Fabric) -> None:
    fabric.devices["b0"].pinnable = 99
    memory = bytearray(100)
    view = MemoryBuffer("m", memory)
    with pytest.raises(LockedMemoryLimit):
        add(whole, view)
    assert not fabric.regions  # the first device had it already
    assert whole.find(view) is None
    view.close()
    memory.append(1)


def test_withdrawn_and_closed_memory_is_given_back(whole: WholeBuffers, fabric: Fabric) -> None:
    memories = [bytearray(100) for _ in range(3)]
    buffers = [MemoryBuffer("m", memory) for memory in memories]
    for number, buffer in enumerate(buffers):
        add(whole, buffer, AT + number * 4096)
    assert len(fabric.regions) == 6
    whole.withdraw(AT)
    whole.withdraw(AT)
    assert len(fabric.regions) == 4
    assert whole.find(buffers[0]) is None
    assert whole.find(buffers[1]) is not None
    whole.close()
    whole.close()
    assert not fabric.regions
    for memory, buffer in zip(memories, buffers, strict=True):
        buffer.close()
        memory.append(1)


def test_verbs_that_cannot_remap_are_named_with_those_that_can(open_nics: Callable[..., Nics]) -> None:
    with pytest.raises(TransportUnavailable, match="use ctypes"):
        WholeBuffers(open_nics("a0", remaps=False))
