"""A ``TransferEngine`` of protocol rdma, on fake devices."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.config.settings import EngineSettings
from engine.engine import File, Opcode, TransferEngine, TransferRequest, TransferState
from engine.errors import RangeRefused, TransferFailed, TransportUnavailable, UsageError
from engine.transports.rdma.nics import Nics
from engine.transports.rdma.verbs.fake_verbs import Fabric, FakeDevice

MIB = 1 << 20


@pytest.fixture
def engines(open_nics: Callable[..., Nics]) -> Iterator[tuple[TransferEngine, TransferEngine]]:
    settings = EngineSettings(retries=2, stall_timeout=60)
    with (
        TransferEngine(protocol="rdma", nics=open_nics("a0"), settings=settings) as one,
        TransferEngine(protocol="rdma", nics=open_nics("b0"), settings=settings) as other,
    ):
        yield one, other


def test_the_descriptor_is_upstreams(engines: tuple[TransferEngine, TransferEngine]) -> None:
    one, other = engines
    memory = other.register_memory(bytearray(10_000), name="cpu:0", writable=True)
    described = one.open_segment(other.segment_name).descriptor.to_json()
    assert described["protocol"] == "rdma"
    assert described["devices"] == [{"name": "b0", "lid": 0, "gid": "00:00:00:00:00:00:00:00:00:00:ff:ff:0a:01:00:02"}]
    assert described["priority_matrix"] == {"cpu:0": [["b0"], []]}
    (buffer,) = described["buffers"]
    assert (buffer["name"], buffer["addr"], buffer["length"]) == ("cpu:0", memory.address, 10_000)
    assert len(buffer["rkey"]) == len(buffer["lkey"]) == 1


@pytest.mark.parametrize("length", [1, 4096, 3 * MIB + 7])
def test_reads_and_writes_of_registered_memory(
    engines: tuple[TransferEngine, TransferEngine], fabric: Fabric, length: int
) -> None:
    one, other = engines
    data, target = os.urandom(length), bytearray(length)
    source, theirs = bytearray(data), bytearray(length)
    ours = one.register_memory(source)
    into = one.register_memory(target)
    remote = other.register_memory(theirs, writable=True)
    peer = one.open_segment(other.segment_name)
    assert peer.over_rdma
    one.write(ours, peer, remote.address)
    assert theirs == data
    one.read(into, peer, remote.address)
    assert target == data
    assert fabric.moved == {("a0", "b0"): 2 * length}


def test_memory_that_is_not_registered_and_files_can_be_moved(
    engines: tuple[TransferEngine, TransferEngine], tmp_path: Path
) -> None:
    one, other = engines
    data = os.urandom(2 * MIB + 3)
    remote = other.register_memory(bytearray(len(data)), writable=True)
    peer = one.open_segment(other.segment_name)
    one.write(data, peer, remote.address)
    into = bytearray(len(data))
    one.read(into, peer, remote.address)
    assert into == data
    into.append(1)  # nothing holds it any more
    (tmp_path / "f").write_bytes(data[::-1])
    served = other.register_memory(File(tmp_path / "f"))
    one.read(memoryview(into)[:-1], peer, served.address)
    assert into[:-1] == data[::-1]


def test_a_batch_says_how_each_request_went(engines: tuple[TransferEngine, TransferEngine]) -> None:
    one, other = engines
    data = os.urandom(MIB)
    remote = other.register_memory(data)
    peer = one.open_segment(other.segment_name)
    into = [bytearray(MIB // 4) for _ in range(4)]
    batch = one.submit_transfer(
        [
            *(TransferRequest(Opcode.READ, into[n], peer, remote.address + n * MIB // 4) for n in range(4)),
            TransferRequest(Opcode.READ, bytearray(5), peer, 4096),
            TransferRequest(Opcode.WRITE, b"12345", peer, remote.address),
        ]
    )
    assert batch.wait(60)
    states = [status.state for status in batch.statuses()]
    assert states == [TransferState.COMPLETED] * 4 + [TransferState.FAILED] * 2
    assert isinstance(batch.status(4).error, RangeRefused)
    assert isinstance(batch.status(5).error, RangeRefused)  # read-only memory is registered to be read
    assert b"".join(into) == data


def test_memory_that_was_withdrawn_is_refused(engines: tuple[TransferEngine, TransferEngine]) -> None:
    one, other = engines
    kept = bytearray(os.urandom(MIB))
    remote = other.register_memory(kept)
    peer = one.open_segment(other.segment_name)
    into = bytearray(MIB)
    one.read(into, peer, remote.address)
    assert other.unregister_memory(remote)
    kept.append(1)
    with pytest.raises(RangeRefused):
        one.read(into, peer, remote.address)


def test_a_lost_request_is_made_again(engines: tuple[TransferEngine, TransferEngine], fabric: Fabric) -> None:
    one, other = engines
    remote = other.register_memory(b"x" * 4 * MIB)
    peer = one.open_segment(other.segment_name)
    fabric.statuses.extend([0, 12])
    into = bytearray(4 * MIB)
    one.read(into, peer, remote.address)
    assert into == b"x" * 4 * MIB


def test_a_device_that_stays_dead_is_told(engines: tuple[TransferEngine, TransferEngine], fabric: Fabric) -> None:
    one, other = engines
    remote = other.register_memory(b"x" * MIB)
    peer = one.open_segment(other.segment_name)
    fabric.down.add("b0")
    with pytest.raises((TransportUnavailable, TransferFailed), match=r"a0 to b0 of .*RETRY_EXC_ERR"):
        one.read(bytearray(MIB), peer, remote.address)
    fabric.down.clear()
    one.read(bytearray(MIB), peer, remote.address)


def test_engines_of_both_protocols_reach_each_other_over_tcp(
    engines: tuple[TransferEngine, TransferEngine], fabric: Fabric
) -> None:
    one, _ = engines
    with TransferEngine() as plain:
        here = one.register_memory(b"rdma")
        there = plain.register_memory(b"tcp!")
        into = bytearray(4)
        plain.read(into, plain.open_segment(one.segment_name), here.address)
        assert into == b"rdma"
        one.read(into, one.open_segment(plain.segment_name), there.address)
        assert into == b"tcp!"
    assert not fabric.moved


def test_what_a_file_must_be_to_be_offered(engines: tuple[TransferEngine, TransferEngine], tmp_path: Path) -> None:
    one, _ = engines
    (tmp_path / "f").write_bytes(b"x" * 100)
    with pytest.raises(UsageError, match="over RDMA"):
        one.register_memory(File(tmp_path / "f"), writable=True)


def test_several_devices_stand_in_upstreams_order(open_nics: Callable[..., Nics], fabric: Fabric) -> None:
    fabric.devices["a1"] = FakeDevice("a1", "10.1.0.11")
    with (
        TransferEngine(protocol="rdma", nics=open_nics("a0", "a1")) as one,
        TransferEngine(protocol="rdma", nics=open_nics("b0")) as other,
    ):
        data = os.urandom(8 * MIB)
        remote = one.register_memory(data)
        peer = other.open_segment(one.segment_name)
        assert [device.name for device in peer.descriptor.devices] == ["a0", "a1"]
        assert len(peer.buffers[0].rkeys) == 2
        into = bytearray(len(data))
        other.read(into, peer, remote.address)
        assert into == data


def test_without_a_device_the_reason_is_told(open_nics: Callable[..., Nics], fabric: Fabric) -> None:
    fabric.devices["a0"].state = "DOWN"
    with pytest.raises(TransportUnavailable, match="a0: its port is DOWN, not ACTIVE"):
        open_nics("a0")
    with pytest.raises(TransportUnavailable, match="speaks tcp and rdma"):
        TransferEngine(protocol="cxl")


def test_nothing_is_left_of_an_engine(open_nics: Callable[..., Nics], fabric: Fabric) -> None:
    ours, theirs = open_nics("a0"), open_nics("b0")
    with (
        TransferEngine(protocol="rdma", nics=ours) as one,
        TransferEngine(protocol="rdma", nics=theirs) as other,
    ):
        remote = other.register_memory(b"x" * MIB)
        one.read(bytearray(MIB), one.open_segment(other.segment_name), remote.address)
    ours.close()
    theirs.close()
    assert fabric.left == 0
