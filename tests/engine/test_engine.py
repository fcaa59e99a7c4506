"""The transfer engine in upstream's terms: memory and files, batches, stripes, retries, cancelling, notify and probe."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.config.settings import EngineSettings
from engine.engine import (
    Batch,
    File,
    Opcode,
    Segment,
    TransferEngine,
    TransferRequest,
    TransferState,
)
from engine.errors import (
    AddressError,
    Closed,
    PeerStalled,
    PeerUnreachable,
    RangeRefused,
    StorageError,
    TransferFailed,
    TransportUnavailable,
    UsageError,
)
from engine.protocol import wire
from engine.protocol.segment import SegmentDescriptor
from engine.serving import tcp_server
from engine.serving.handshake_server import HandshakeServer

READ, WRITE = Opcode.READ, Opcode.WRITE
SMALL_SLICES = EngineSettings(slice_size=4096, retries=3, stall_timeout=5.0)


@pytest.fixture(params=[2, 1], ids=["v2", "v1"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[TransferEngine, TransferEngine]]:
    """A target that speaks up to this version, and an initiator that cuts requests into small slices."""
    spoken = EngineSettings(protocol_version=request.param)
    with TransferEngine(settings=spoken) as target, TransferEngine(settings=SMALL_SLICES) as initiator:
        yield target, initiator


def ready(initiator: TransferEngine, target: TransferEngine) -> Segment:
    return initiator.open_segment(target.segment_name)


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


def test_a_batch_of_many_tells_of_each(pair: tuple[TransferEngine, TransferEngine]) -> None:
    target, initiator = pair
    theirs = bytearray(random.Random(2).randbytes(1 << 20))
    remote = target.register_memory(theirs, writable=True)
    local = bytearray(1 << 20)
    ours = initiator.register_memory(local)
    segment = ready(initiator, target)
    whole = hashlib.sha256(theirs).digest()
    pieces = [(at, min(9000, len(theirs) - at)) for at in range(0, len(theirs), 9000)]
    requests = [TransferRequest(READ, ours, segment, remote.address + at, size, at) for at, size in pieces]
    requests.append(TransferRequest(READ, ours, segment, remote.address + len(theirs) - 5, 10, 0))
    batch = initiator.submit_transfer(requests)
    seen: list[int] = []

    def poll() -> None:
        while not batch.done:
            seen.append(batch.transferred)
            time.sleep(0.001)

    watcher = threading.Thread(target=poll)
    watcher.start()
    assert batch.wait(30)
    watcher.join()
    assert seen == sorted(seen)
    assert len(batch) == len(requests)
    assert hashlib.sha256(local).digest() == whole
    for (_, size), status in zip(pieces, batch.statuses(), strict=False):
        assert (status.state, status.transferred, status.error) == (TransferState.COMPLETED, size, None)
    last = batch.status(len(requests) - 1)
    assert (last.state, last.transferred) == (TransferState.FAILED, 0)
    assert isinstance(last.error, RangeRefused)
    with pytest.raises(RangeRefused):
        batch.raise_failed()
    with pytest.raises(UsageError):
        batch.status(len(requests))


def test_many_are_carried_out_in_the_callers_thread_and_each_has_its_end() -> None:
    with TransferEngine() as one, TransferEngine() as other, TransferEngine(settings=SMALL_SLICES) as initiator:
        data = random.Random(3).randbytes(1 << 20)
        held = [(each, each.register_memory(bytearray(data), writable=True)) for each in (one, other)]
        rooms = [bytearray(50_000) for _ in range(10)]
        requests = []
        for number, room in enumerate(rooms):
            engine, memory = held[number % 2]
            requests.append(TransferRequest(READ, room, ready(initiator, engine), memory.address + number))
        requests.append(TransferRequest(READ, bytearray(9), ready(initiator, one), 0))
        batch = initiator.carry_out(requests)
        assert batch.done
        *good, bad = batch.statuses()
        assert all(status.state is TransferState.COMPLETED for status in good)
        assert isinstance(bad.error, RangeRefused)
        assert all(room == data[number : number + 50_000] for number, room in enumerate(rooms))
        assert initiator.carry_out([]).done
        with pytest.raises(UsageError, match="a list of requests"):
            initiator.carry_out(5)  # type: ignore[arg-type]


def test_reads_and_writes_in_one_batch(pair: tuple[TransferEngine, TransferEngine]) -> None:
    target, initiator = pair
    source, sink = target.register_memory_batch([bytearray(b"ab" * 5000), bytearray(10_000)], writable=True)
    segment = ready(initiator, target)
    got = [bytearray(1000) for _ in range(10)]
    requests = []
    for n in range(10):
        requests.append(TransferRequest(READ, got[n], segment, source.address + n * 1000))
        requests.append(TransferRequest(WRITE, bytes([n]) * 1000, segment, sink.address + n * 1000))
    batch = initiator.submit_transfer(requests)
    assert batch.wait(30)
    batch.raise_failed()
    assert b"".join(got) == b"ab" * 5000
    back = bytearray(10_000)
    initiator.read(back, segment, sink.address)
    assert back == b"".join(bytes([n]) * 1000 for n in range(10))


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


def test_misuse_begins_nothing() -> None:
    with TransferEngine() as engine:
        memory = engine.register_memory(bytearray(10))
        segment = engine.open_segment(engine.segment_name)
        for request in [
            TransferRequest(READ, memory, segment, memory.address, 11),
            TransferRequest(READ, memory, segment, memory.address, 5, 6),
            TransferRequest(READ, memory, segment, memory.address, -1),
            TransferRequest(READ, b"read-only", segment, memory.address, 5),
            TransferRequest(READ, bytearray(9), segment, 1 << 64, 5),
        ]:
            with pytest.raises(UsageError):
                engine.submit_transfer([TransferRequest(READ, memory, segment, memory.address), request])
        assert engine.unregister_memory(memory, timeout=5)
        empty = engine.submit_transfer([TransferRequest(READ, bytearray(), segment, 0)])
        assert empty.done
        assert empty.status(0).state is TransferState.COMPLETED
        assert engine.submit_transfer([]).wait(0)
    with pytest.raises(TransportUnavailable):
        TransferEngine(protocol="rdma")
    with pytest.raises(UsageError):
        engine.open_segment("127.0.0.1:1")


class Scripted:
    """A segment whose data port does to each connection what a script says."""

    def __init__(self, *steps: Callable[[socket.socket], None], version: int = 2) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.accepted = 0
        self._steps = steps
        port = self.listener.getsockname()[1]
        self.handshake = HandshakeServer(
            lambda: SegmentDescriptor("scripted", port, tcp_proto_version=version), "127.0.0.1", 0
        )
        self.handshake.start()
        self.name = f"127.0.0.1:{self.handshake.port}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            step = self._steps[min(self.accepted, len(self._steps) - 1)]
            self.accepted += 1
            threading.Thread(target=self._do, args=(step, sock), daemon=True).start()

    @staticmethod
    def _do(step: Callable[[socket.socket], None], sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            step(sock)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(5)
        self.handshake.close()


def serve(sock: socket.socket) -> None:
    while header := sock.recv(wire.HEADER_LENGTH, socket.MSG_WAITALL):
        request = wire.unpack_request(header, peer="client")
        sock.sendall(wire.pack_status(0) + b"s" * request.length)


def hang_up(sock: socket.socket) -> None:
    header = sock.recv(wire.HEADER_LENGTH, socket.MSG_WAITALL)
    length = wire.unpack_request(header, peer="client").length
    sock.sendall(wire.pack_status(0) + b"?" * (length // 2))


def silent(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


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
        with TransferEngine() as target:
            name = target.segment_name
            engine.read(bytearray(3), engine.open_segment(name), target.register_memory(b"abc").address)
        with TransferEngine(name) as again:
            assert again.segment_name == name
            got = bytearray(3)
            engine.read(got, engine.open_segment(name), again.register_memory(b"xyz").address)
            assert got == b"xyz"


def test_cancel_ends_a_batch_that_waits_for_a_silent_peer() -> None:
    server = Scripted(silent)
    with TransferEngine(settings=EngineSettings(slice_size=4096)) as engine:
        memory = engine.register_memory(bytearray(100_000))
        segment = engine.open_segment(server.name)
        batch: Batch = engine.submit_transfer([TransferRequest(READ, memory, segment, 4096) for _ in range(50)])
        assert not batch.wait(0.2)
        assert not engine.unregister_memory(memory, timeout=0.0)
        batch.cancel()
        assert batch.wait(10)
        assert {each.state for each in batch.statuses()} == {TransferState.CANCELLED}
        with pytest.raises(UsageError, match="cancelled"):
            batch.raise_failed()
        with pytest.raises(PeerStalled):
            engine.read(bytearray(10), segment, 4096, timeout=0.2)
    server.close()


def test_a_silent_peer_is_given_up() -> None:
    server = Scripted(silent)
    impatient = EngineSettings(retries=0, stall_timeout=0.3)
    with TransferEngine(settings=impatient) as engine, pytest.raises(TransferFailed, match="no byte moved"):
        engine.read(bytearray(10), engine.open_segment(server.name), 4096)
    server.close()


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


def test_an_engine_ends_with_transfers_under_way() -> None:
    server = Scripted(silent)
    engine = TransferEngine()
    batch = engine.submit_transfer([TransferRequest(READ, bytearray(10), engine.open_segment(server.name), 4096)])
    engine.close()
    assert batch.wait(10)
    assert batch.status(0).state is TransferState.CANCELLED
    server.close()
    engine.close()


def serve_once(sock: socket.socket) -> None:
    header = sock.recv(wire.HEADER_LENGTH, socket.MSG_WAITALL)
    sock.sendall(wire.pack_status(0) + b"s" * wire.unpack_request(header, peer="client").length)


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


@pytest.mark.parametrize("length", [1000, 3 << 20])
def test_no_byte_of_a_synchronous_read_comes_after_close(length: int) -> None:
    """D11: a read of one lane, or of slices that were all taken, was not broken off."""
    half, closed = threading.Event(), threading.Event()

    def hang_in_the_middle(sock: socket.socket) -> None:
        header = sock.recv(wire.HEADER_LENGTH, socket.MSG_WAITALL)
        length = wire.unpack_request(header, peer="client").length
        sock.sendall(wire.pack_status(0) + b"s" * (length // 2))
        half.set()
        assert closed.wait(60)
        sock.sendall(b"s" * (length - length // 2))

    server = Scripted(hang_in_the_middle)
    engine = TransferEngine(settings=EngineSettings(lanes=1))
    segment = engine.open_segment(server.name)
    got = bytearray(length)
    errors: list[BaseException] = []

    def read() -> None:
        try:
            engine.read(got, segment, 4096)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert half.wait(60)
    engine.close()
    before = bytes(got)
    closed.set()
    thread.join(60)
    assert not thread.is_alive()
    assert got == before
    assert [type(error) for error in errors] == [Closed]
    server.close()


def test_an_engine_ends_with_a_read_under_way_on_an_idle_connection() -> None:
    asked = threading.Event()

    def serve_once_and_hang(sock: socket.socket) -> None:
        serve_once(sock)
        sock.recv(wire.HEADER_LENGTH, socket.MSG_WAITALL)
        asked.set()
        silent(sock)

    server = Scripted(serve_once_and_hang)
    engine = TransferEngine()
    segment = engine.open_segment(server.name)
    engine.read(bytearray(10), segment, 4096)
    errors: list[BaseException] = []

    def read() -> None:
        try:
            engine.read(bytearray(10), segment, 4096)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert asked.wait(20)
    engine.close()
    thread.join(20)
    assert [type(error) for error in errors] == [Closed]
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
