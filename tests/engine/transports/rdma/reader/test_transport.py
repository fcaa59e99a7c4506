"""Reads over RDMA between two segments, on fake devices."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import (
    LockedMemoryLimit,
    PeerUnreachable,
    TransportUnavailable,
)
from engine.memory.buffers import FilesBuffer, MemoryBuffer
from engine.memory.file_spans import FileSpan
from engine.protocol.key import new_key
from engine.serving.segment_server import SegmentServer
from engine.transports.base import PeerAddress
from engine.transports.into_memory import IntoMemory
from engine.transports.rdma.nics import Nics
from engine.transports.rdma.reader.transport import RdmaTransport
from engine.transports.rdma.verbs.fake_verbs import Fabric, FakeDevice
from engine.transports.rdma.verbs.interface import Limits

MIB = 1 << 20


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


def test_nothing_is_left_behind(fabric: Fabric, open_nics: Callable[..., Nics], tmp_path: Path) -> None:
    data = content(3 * MIB)
    (tmp_path / "f").write_bytes(data)
    descriptors = len(os.listdir("/proc/self/fd"))
    ours, theirs = open_nics("a0"), open_nics("b0")
    with SegmentServer(rdma=theirs) as server:
        transport = RdmaTransport(ours)
        address = server.register(FilesBuffer("f", [FileSpan(str(tmp_path / "f"), len(data))]))
        for _ in range(20):
            assert read(transport, server.address_of_self(), address, len(data)) == data
        deadline = time.monotonic() + 60
        while server.rdma_sessions and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not server.rdma_sessions
        assert not fabric.pairs
        # The window of the file, one ring, and the owner's queue stay.
        assert len(fabric.regions) == 2
        assert len(fabric.queues) == 1
        transport.close()
    ours.close()
    theirs.close()
    assert fabric.left == 0
    FilesBuffer("other", [FileSpan(str(tmp_path / "f"), 1)]).close()
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # one in the cache of open files


def test_a_device_that_answers_no_more_is_told_by_name(
    owner: SegmentServer, reader: RdmaTransport, fabric: Fabric
) -> None:
    address = owner.register(MemoryBuffer("m", content(MIB)))
    channel = reader.open(owner.address_of_self())
    fabric.down.add("b0")
    with pytest.raises(TransportUnavailable, match=r"a0 to b0 of 127.0.0.1:\d+: RETRY_EXC_ERR"):  # noqa: PT012
        channel.submit(address, MIB)
        channel.receive(IntoMemory(memoryview(bytearray(MIB))))
    with pytest.raises(PeerUnreachable):
        channel.submit(address, 1)


def test_locked_memory_is_told_with_advice(owner: SegmentServer, reader: RdmaTransport, fabric: Fabric) -> None:
    address = owner.register(MemoryBuffer("m", content(MIB)))
    fabric.devices["a0"].pinnable = MIB
    with pytest.raises(LockedMemoryLimit, match="locked memory") as caught:
        reader.open(owner.address_of_self())
    assert "ulimit -l" in caught.value.hint
    fabric.devices["a0"].pinnable = 1 << 40
    fabric.devices["b0"].pinnable = 4096
    with pytest.raises(TransportUnavailable, match=r"says: .* limit of locked memory"):
        read(reader, owner.address_of_self(), address, MIB)


def test_all_devices_of_both_sides_carry_a_share(open_nics: Callable[..., Nics], fabric: Fabric) -> None:
    for number in (1, 2, 3):
        fabric.devices[f"a{number}"] = FakeDevice(f"a{number}", f"10.1.0.{number + 10}")
        fabric.devices[f"b{number}"] = FakeDevice(f"b{number}", f"10.1.0.{number + 20}")
    data = content(40 * MIB)
    with SegmentServer(rdma=open_nics("b0", "b1", "b2")) as server:
        reader = RdmaTransport(open_nics("a0", "a1"))
        address = server.register(MemoryBuffer("m", data))
        fabric.held = True
        channel = reader.open(server.address_of_self())
        channel.submit(address, len(data))
        into = bytearray(len(data))
        thread = threading.Thread(target=channel.receive, args=(IntoMemory(memoryview(into)),))
        thread.start()
        while thread.is_alive():
            fabric.release()
            thread.join(0.01)
        channel.close()
        reader.close()
    assert into == data
    ours, theirs = zip(*fabric.moved, strict=True)
    assert set(ours) == {"a0", "a1"}
    assert set(theirs) == {"b0", "b1", "b2"}


def test_a_rail_that_fails_leaves_its_share_to_others(open_nics: Callable[..., Nics], fabric: Fabric) -> None:
    fabric.devices["a1"] = FakeDevice("a1", "10.1.0.11")
    fabric.devices["b1"] = FakeDevice("b1", "10.1.0.21")
    data = content(24 * MIB)
    with SegmentServer(rdma=open_nics("b0", "b1")) as server:
        reader = RdmaTransport(open_nics("a0", "a1"))
        address = server.register(MemoryBuffer("m", data))
        channel = reader.open(server.address_of_self())
        fabric.down.add("b1")
        into = bytearray(len(data))
        channel.submit(address, len(data))
        channel.receive(IntoMemory(memoryview(into)))
        channel.close()
        reader.close()
    assert into == data


@pytest.mark.parametrize("remaps", [True, False])
def test_addresses_tell_nothing_of_the_process_where_verbs_can_remap(
    open_nics: Callable[..., Nics], fabric: Fabric, remaps: bool
) -> None:
    data = content(MIB)
    with SegmentServer(rdma=open_nics("b0", remaps=remaps)) as server:
        reader = RdmaTransport(open_nics("a0"))
        address = server.register(MemoryBuffer("m", data))
        assert read(reader, server.address_of_self(), address, MIB) == data
        (offered,) = [region for region in fabric.regions.values() if not region.access & 1]
        assert (offered.remote != offered.address) == remaps
        assert offered.remote % 4096 == offered.address % 4096
        assert offered.access == 4
        reader.close()


def test_a_peer_without_devices_is_not_usable(reader: RdmaTransport) -> None:
    with SegmentServer() as server:
        assert reader.usable(server.address_of_self()) == "the peer offers no RDMA device"
        assert server.rdma_reason
        with pytest.raises(TransportUnavailable):
            reader.open(server.address_of_self())


def test_a_segment_that_offers_nothing_rejects(reader: RdmaTransport, owner: SegmentServer) -> None:
    with SegmentServer() as server:
        me = server.address_of_self()
        peer = PeerAddress(me.segment, me.host, me.data_port, rdma=owner.address_of_self().rdma)
        with pytest.raises(TransportUnavailable, match="offers nothing over RDMA"):
            reader.open(peer)


@pytest.mark.parametrize("device", ["a0", "b0"])
def test_a_device_without_room_is_told_and_nothing_is_left(
    open_nics: Callable[..., Nics], fabric: Fabric, device: str
) -> None:
    fabric.devices[device].limits = Limits(1, 1, 256, 16, 16, 1 << 40)  # one queue pair, and two are wanted
    with SegmentServer(rdma=open_nics("b0")) as server:
        reader = RdmaTransport(open_nics("a0"))
        with pytest.raises(TransportUnavailable, match=f"create_qp failed on {device}: Cannot allocate memory"):
            reader.open(server.address_of_self())
        deadline = time.monotonic() + 60
        while fabric.pairs and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not fabric.pairs
        reader.close()


def test_with_a_key_only_who_is_told_it_is_connected(open_nics: Callable[..., Nics]) -> None:
    ours, theirs = open_nics("a0"), open_nics("b0")
    data = content(MIB)
    with SegmentServer(rdma=theirs, key=new_key()) as server:
        transport = RdmaTransport(ours)
        address = server.register(MemoryBuffer("m", data))
        told = server.address_of_self()
        for shown in ("", new_key()):
            with pytest.raises(TransportUnavailable, match="the key is missing or differs"):
                transport.open(replace(told, key=shown))
        assert read(transport, told, address, MIB) == data
        transport.close()
    ours.close()
    theirs.close()
