"""One channel to an owner, on fake devices: through the ring or in place, and what a device may still touch."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import (
    PeerUnreachable,
    RangeRefused,
    UsageError,
)
from engine.memory.buffers import FilesBuffer, MemoryBuffer
from engine.memory.file_spans import FileSpan
from engine.memory.joined_buffer import JoinedBuffer
from engine.memory.region import Region
from engine.serving.segment_server import SegmentServer
from engine.transports.base import PeerAddress
from engine.transports.into_memory import IntoMemory
from engine.transports.rdma.nics import Nics
from engine.transports.rdma.reader import channel as channels
from engine.transports.rdma.reader.channel import Ring
from engine.transports.rdma.reader.transport import RdmaTransport
from engine.transports.rdma.verbs.fake_verbs import Fabric

MIB = 1 << 20


class Taking(IntoMemory):
    """A sink that takes what lies in the ring."""

    def __init__(self, view: memoryview) -> None:
        super().__init__(view)
        self.taken = 0

    def take(self, data: memoryview) -> None:
        self._view[self.done : self.done + len(data)] = data
        self.done += len(data)
        self.taken += 1


def content(length: int, seed: int = 1) -> bytes:
    return (bytes([seed]) + os.urandom(4095)) * (length // 4096) + os.urandom(length % 4096)


def read(transport: RdmaTransport, peer: PeerAddress, address: int, length: int) -> bytes:
    into = bytearray(length)
    channel = transport.open(peer)
    try:
        channel.submit(address, length)
        channel.receive(IntoMemory(memoryview(into)))
    finally:
        channel.close()
    return bytes(into)


@pytest.mark.parametrize("length", [1, 4097, MIB, 3 * MIB + 5, channels.SLOTS * channels.SLOT + MIB + 1])
def test_memory_arrives(owner: SegmentServer, reader: RdmaTransport, length: int) -> None:
    data = content(length)
    address = owner.register(MemoryBuffer("m", data))
    assert read(reader, owner.address_of_self(), address, length) == data
    assert owner.bytes_granted_rdma == length


def test_a_range_of_a_file_arrives_out_of_several_windows(
    owner: SegmentServer, reader: RdmaTransport, tmp_path: Path
) -> None:
    data = content(36 * MIB + 77)
    (tmp_path / "f").write_bytes(data)
    address = owner.register(FilesBuffer("f", [FileSpan(str(tmp_path / "f"), len(data))]))
    at, length = 15 * MIB + 3, 18 * MIB
    assert read(reader, owner.address_of_self(), address + at, length) == data[at : at + length]


def test_a_directory_arrives_small_files_and_large(owner: SegmentServer, reader: RdmaTransport, tmp_path: Path) -> None:
    parts = [content(size, number) for number, size in enumerate([10, 70_000, 1, 2 * MIB + 1, 5000, 300_000, 9])]
    spans = []
    for number, part in enumerate(parts):
        (tmp_path / str(number)).write_bytes(part)
        spans.append(FileSpan(str(tmp_path / str(number)), len(part)))
    address = owner.register(FilesBuffer("d", spans))
    whole = b"".join(parts)
    assert read(reader, owner.address_of_self(), address, len(whole)) == whole


def test_several_pieces_of_memory_arrive_as_one(owner: SegmentServer, reader: RdmaTransport) -> None:
    parts = [content(5 * MIB, 1), content(33, 2), content(MIB, 3)]
    address = owner.register(JoinedBuffer("j", [memoryview(part) for part in parts]))
    whole = b"".join(parts)
    assert read(reader, owner.address_of_self(), address, len(whole)) == whole


def test_requests_are_received_in_the_order_of_their_submission(owner: SegmentServer, reader: RdmaTransport) -> None:
    data = content(8 * MIB)
    address = owner.register(MemoryBuffer("m", data))
    channel = reader.open(owner.address_of_self())
    for at in range(0, len(data), MIB):
        channel.submit(address + at, MIB)
    got = bytearray()
    for _ in range(8):
        into = bytearray(MIB)
        sink = Taking(memoryview(into))
        channel.receive(sink)
        assert sink.taken == 1
        got += into
    channel.close()
    assert got == data


def test_memory_is_read_in_place(owner: SegmentServer, reader: RdmaTransport, fabric: Fabric) -> None:
    data = content(5 * MIB)
    address = owner.register(MemoryBuffer("m", data))
    channel = reader.open(owner.address_of_self())
    into = bytearray(len(data))
    channel.submit(address, len(data), Region.of(into))
    # Nothing was received, but the device has written already.
    assert into[: 4 * MIB] == data[: 4 * MIB]
    with pytest.raises(BufferError):
        into.append(1)  # it must not move while a device may write there
    channel.receive(IntoMemory(memoryview(into)))
    assert into == data
    into.append(1)
    channel.close()


def test_a_withdrawn_region_fails_its_readers_cleanly(
    owner: SegmentServer, reader: RdmaTransport, fabric: Fabric
) -> None:
    data = content(8 * MIB)
    address = owner.register(MemoryBuffer("m", data))
    channel = reader.open(owner.address_of_self())
    fabric.held = True
    channel.submit(address, len(data))
    owner.unregister(address)
    fabric.release()
    with pytest.raises(RangeRefused):
        channel.receive(IntoMemory(memoryview(bytearray(len(data)))))
    assert read_back(owner, reader)


def read_back(owner: SegmentServer, reader: RdmaTransport) -> bool:
    """Whether the two still get on with each other."""
    address = owner.register(MemoryBuffer("again", b"x" * 5000))
    return read(reader, owner.address_of_self(), address, 5000) == b"x" * 5000


def test_memory_can_be_resized_once_it_is_withdrawn(owner: SegmentServer, reader: RdmaTransport) -> None:
    data = bytearray(content(MIB))
    address = owner.register(MemoryBuffer("m", data))
    assert read(reader, owner.address_of_self(), address, MIB) == data
    assert owner.unregister(address)
    data.append(1)


def test_closing_from_another_thread_ends_a_wait(owner: SegmentServer, reader: RdmaTransport, fabric: Fabric) -> None:
    address = owner.register(MemoryBuffer("m", content(MIB)))
    channel = reader.open(owner.address_of_self())
    into = bytearray(MIB)
    fabric.held = True
    channel.submit(address, MIB, Region.of(into))
    closer = threading.Timer(0.1, channel.close)
    closer.start()
    with pytest.raises(PeerUnreachable):
        channel.receive(IntoMemory(memoryview(into)))
    closer.join()
    fabric.release()
    assert not any(into)  # no device writes after the close
    into.append(1)


@pytest.fixture
def nics(open_nics: Callable[..., Nics]) -> Nics:
    return open_nics("a0")


def test_a_ring_is_registered_on_each_device_once_and_read_by_slots(
    open_nics: Callable[..., Nics], nics: Nics, fabric: Fabric
) -> None:
    ring = Ring()
    ring.prepare(list(nics))
    ring.prepare([*nics, *open_nics("b0")])
    assert set(ring.lkeys) == {"a0", "b0"}
    assert len(fabric.regions) == 2
    assert sorted(ring.free) == list(range(channels.SLOTS))
    last = channels.SLOTS - 1
    assert ring.address(last) == ring.address(0) + last * channels.SLOT
    ring.data(last, 3)[:] = b"abc"
    assert ctypes.string_at(ring.address(last), 3) == b"abc"
    ring.close()
    ring.close()
    assert not fabric.regions


def test_the_ring_comes_back_once_and_whole(owner: SegmentServer, nics: Nics, fabric: Fabric) -> None:
    """Whatever was under way: from then on no device uses it."""
    back: list[Ring] = []
    ring = Ring()
    reader = RdmaTransport(nics)
    opened = reader.open(owner.address_of_self())
    assert isinstance(opened, channels.RdmaChannel)
    ring.prepare(opened._link.nics)
    channel = channels.RdmaChannel(opened._link, ring, stall_timeout=60, give_back=back.append)
    address = owner.register(MemoryBuffer("m", content(4 * MIB)))
    fabric.held = True
    channel.submit(address, 4 * MIB)
    assert len(ring.free) == channels.SLOTS - 4
    channel.close()
    channel.close()
    assert back == [ring]
    assert sorted(ring.free) == list(range(channels.SLOTS))
    assert not [pair for pair in fabric.pairs.values() if pair.device == "a0"]
    ring.close()
    opened.close()
    reader.close()


def test_memory_of_another_length_or_that_is_read_only_is_not_used(owner: SegmentServer, reader: RdmaTransport) -> None:
    address = owner.register(MemoryBuffer("m", b"12345678"))
    channel = reader.open(owner.address_of_self())
    into = bytearray(7)
    with pytest.raises(UsageError):
        channel.submit(address, 8, Region.of(into))
    into.append(1)
    channel.submit(address, 8, Region.of(b"x" * 8))  # through the ring, then
    sink = Taking(memoryview(bytearray(8)))
    channel.receive(sink)
    assert sink.taken == 1
    channel.close()
