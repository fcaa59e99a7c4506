"""The transfer engine in upstream's terms: memory and files, stripes, retries, notify and probe."""

from __future__ import annotations

import mmap
import random
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from engine.config.settings import EngineSettings
from engine.engine import (
    File,
    Opcode,
    TransferEngine,
)
from engine.errors import (
    AddressError,
    PeerUnreachable,
    RangeRefused,
    RemoteError,
    StorageError,
    TransferFailed,
    UsageError,
)
from engine.protocol import wire
from engine.serving import tcp_server
from tests.engine.engines import SMALL_SLICES, OldMemory, Scripted, hang_up, pair, ready, serve, serve_once
from tests.ports import reserved_port

__all__ = ["pair"]


def test_large_small_and_unaligned_transfers_both_ways(pair: tuple[TransferEngine, TransferEngine]) -> None:
    target, initiator = pair
    theirs = bytearray(random.Random(1).randbytes(1_000_003))
    remote = target.register_memory(theirs, writable=True)
    segment = ready(initiator, target)
    assert [(each.address, each.length) for each in segment.buffers] == [(remote.address, remote.length)]
    for at, length in [(0, len(theirs)), (0, 1), (len(theirs) - 1, 1), (7, 4096), (4095, 99_991)]:
        got = bytearray(length + 2)
        initiator.read(got, segment, remote.address + at, length, offset=1)
        assert got[1:-1] == theirs[at : at + length]
        assert got[:1] == got[-1:] == b"\0"
        new = random.Random(at).randbytes(length)
        before = bytes(theirs)
        initiator.write(new, segment, remote.address + at)
        assert theirs == before[:at] + new + before[at + length :]


def test_what_is_not_writable_is_not_written(pair: tuple[TransferEngine, TransferEngine]) -> None:
    target, initiator = pair
    theirs = bytearray(b"x" * 100_000)
    remote = target.register_memory(theirs)
    segment = ready(initiator, target)
    with pytest.raises(RangeRefused):
        initiator.write(bytes(100_000), segment, remote.address)
    with pytest.raises(RangeRefused):
        initiator.write(bytes(10), segment, remote.address)
    assert theirs == b"x" * 100_000
    got = bytearray(10)
    initiator.read(got, segment, remote.address)
    assert got == b"x" * 10


def test_files_on_both_sides(pair: tuple[TransferEngine, TransferEngine], tmp_path: Path) -> None:
    target, initiator = pair
    data = random.Random(3).randbytes(700_001)
    (tmp_path / "theirs").write_bytes(data)
    (tmp_path / "ours").write_bytes(b"")
    remote = target.register_memory(tmp_path / "theirs")
    copy = initiator.register_memory(File(tmp_path / "ours", offset=3, length=len(data)), writable=True)
    segment = ready(initiator, target)
    initiator.read(copy, segment, remote.address)
    assert (tmp_path / "ours").read_bytes() == b"\0\0\0" + data
    (tmp_path / "written").touch()
    sink = target.register_memory(File(tmp_path / "written", length=len(data)), writable=True)
    segment.refresh()
    initiator.write(copy, segment, sink.address)
    assert (tmp_path / "written").read_bytes() == data
    with pytest.raises(UsageError, match="read into"):
        initiator.read(initiator.register_memory(tmp_path / "theirs"), segment, sink.address, 10)
    (tmp_path / "ours").write_bytes(b"")
    with pytest.raises(StorageError):
        initiator.write(copy, segment, sink.address)


def test_numpy_and_mmap(pair: tuple[TransferEngine, TransferEngine]) -> None:
    target, initiator = pair
    theirs = np.arange(10_000, dtype=np.float64).reshape(100, 100)
    remote = target.register_memory(theirs, name="weights", writable=True)
    segment = ready(initiator, target)
    assert segment.buffers[0].name == "weights"
    ours = np.zeros((100, 100))
    initiator.read(ours, segment, remote.address)
    assert (ours == theirs).all()
    with mmap.mmap(-1, theirs.nbytes) as anonymous:
        memory = initiator.register_memory(anonymous)
        initiator.read(memory, segment, remote.address)
        assert anonymous[:] == theirs.tobytes()
        assert initiator.unregister_memory(memory)
    with pytest.raises(UsageError):
        target.register_memory(theirs[:, 1])
    with pytest.raises(UsageError, match="read-only"):
        target.register_memory(b"constant", writable=True)


def test_registering_a_batch_is_all_or_nothing() -> None:
    with TransferEngine() as engine:
        with pytest.raises(UsageError):
            engine.register_memory_batch([bytearray(1), b"", bytearray(1)])
        opened = engine.open_segment(engine.segment_name)
        assert opened.buffers == ()
        both = engine.register_memory_batch([bytearray(1), bytearray(2)], names=["a", "b"])
        assert {(each.name, each.length) for each in opened.refresh().buffers} == {("a", 1), ("b", 2)}
        assert engine.unregister_memory_batch(both)
        assert opened.refresh().buffers == ()
        with pytest.raises(AddressError):
            engine.unregister_memory(both[0])


def test_a_failed_slice_is_retried_on_another_connection() -> None:
    server = Scripted(hang_up, hang_up, serve)
    with TransferEngine(settings=EngineSettings(lanes=1, retries=2)) as engine:
        got = bytearray(100_000)
        engine.read(got, engine.open_segment(server.name), 4096)
        assert got == b"s" * 100_000
        assert server.accepted == 3
    server.close()


def test_what_fails_too_often_is_reported_with_peer_address_and_errno() -> None:
    server = Scripted(hang_up)
    with TransferEngine(settings=EngineSettings(lanes=1, retries=2)) as engine:
        with pytest.raises(TransferFailed) as caught:
            engine.read(bytearray(1000), engine.open_segment(server.name), 4096)
        fields = caught.value.fields
        assert (fields["peer"], fields["address"], fields["length"], fields["attempts"]) == (server.name, 4096, 1000, 3)
        assert fields["errno"]
        assert server.accepted == 3
    server.close()


def test_a_peer_that_went_away() -> None:
    with TransferEngine(settings=EngineSettings(retries=1)) as engine:
        with TransferEngine() as target:
            remote = target.register_memory(bytes(100))
            segment = engine.open_segment(target.segment_name)
            engine.read(bytearray(100), segment, remote.address)
        with pytest.raises(PeerUnreachable):
            engine.read(bytearray(100), segment, remote.address)
        with pytest.raises(PeerUnreachable):
            engine.open_segment(target.segment_name)


def test_a_peer_that_came_back_on_another_data_port() -> None:
    with TransferEngine() as engine:
        with TransferEngine(f"127.0.0.1:{reserved_port()}") as target:
            name = target.segment_name
            engine.read(bytearray(3), engine.open_segment(name), target.register_memory(b"abc").address)
        with TransferEngine(name) as again:
            assert again.segment_name == name
            got = bytearray(3)
            engine.read(got, engine.open_segment(name), again.register_memory(b"xyz").address)
            assert got == b"xyz"


def test_threads_share_an_engine(pair: tuple[TransferEngine, TransferEngine]) -> None:
    target, initiator = pair
    data = random.Random(4).randbytes(300_000)
    remote = target.register_memory(data)
    segment = ready(initiator, target)
    results: list[bool] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(20):
            length = rng.randrange(1, 50_000)
            at = rng.randrange(len(data) - length)
            got = bytearray(length)
            initiator.read(got, segment, remote.address + at)
            results.append(got == data[at : at + length])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 120


def test_notify_and_probe() -> None:
    with TransferEngine() as target, TransferEngine() as engine:
        segment = engine.open_segment(target.segment_name)
        assert 0 < engine.probe(segment) < 60
        engine.notify(segment, "layer-1", "ready")
        engine.notify(target.segment_name, "layer-2", "ünïcode")
        assert target.notifications() == [("layer-1", "ready"), ("layer-2", "ünïcode")]
        assert target.notifications() == []
    with pytest.raises(PeerUnreachable), TransferEngine() as engine:
        engine.probe(segment)


def test_an_idle_connection_that_broke_is_replaced() -> None:
    server = Scripted(serve_once, serve_once, serve)
    with TransferEngine() as engine:
        segment = engine.open_segment(server.name)
        for _ in range(4):
            got = bytearray(1000)
            engine.read(got, segment, 4096)
            assert got == b"s" * 1000
        assert server.accepted == 3
    server.close()


def test_a_refusal_on_an_idle_connection_is_said_and_the_next_transfer_works() -> None:
    with TransferEngine() as target, TransferEngine() as engine:
        remote = target.register_memory(b"abc")
        segment = engine.open_segment(target.segment_name)
        for _ in range(3):
            got = bytearray(3)
            engine.read(got, segment, remote.address)
            assert got == b"abc"
            with pytest.raises(RangeRefused):
                engine.read(bytearray(4), segment, remote.address)
            with pytest.raises(RangeRefused):
                engine.write(b"xyz", segment, remote.address)


def test_a_peer_that_closes_after_each_request_is_read_and_written() -> None:
    """As upstream's are up to 0.3.9; each write is there when it is over."""
    old = OldMemory(100_000)
    server = Scripted(old.serve, version=1, buffers=(old.buffer,))
    with TransferEngine(settings=SMALL_SLICES) as engine:
        segment = engine.open_segment(server.name)
        for seed, (at, length) in enumerate([(0, 100_000), (7, 1), (4095, 50_001)]):
            data = random.Random(seed).randbytes(length)
            engine.write(data, segment, old.BASE + at)
            assert old.data[at : at + length] == data
            got = bytearray(length)
            engine.read(got, segment, old.BASE + at)
            assert got == data
    server.close()


def test_a_write_that_such_a_peer_breaks_off_has_failed() -> None:
    old = OldMemory(100_000)

    def breaks_off(sock: socket.socket) -> None:
        header = sock.recv(wire.HEADER_LENGTH, socket.MSG_WAITALL)
        if wire.unpack_request(header, peer="client").opcode is Opcode.READ:
            sock.sendall(b"s")

    server = Scripted(breaks_off, version=1, buffers=(old.buffer,))
    with TransferEngine(settings=SMALL_SLICES) as engine, pytest.raises(RemoteError):
        engine.write(bytes(50_000), engine.open_segment(server.name), old.BASE)
    server.close()


def test_stalled_readers_hold_no_worker() -> None:
    with TransferEngine() as target, TransferEngine() as engine:
        remote = target.register_memory(bytes(64 << 20))
        stalled = [socket.create_connection(("127.0.0.1", target.data_port)) for _ in range(tcp_server.MAX_WORKERS + 8)]
        for sock in stalled:
            sock.sendall(wire.pack_request(remote.address, remote.length))
        got = bytearray(1 << 20)
        engine.read(got, engine.open_segment(target.segment_name), remote.address, timeout=60)
        for sock in stalled:
            sock.close()
