"""What is asked for begins whole or not at all, tells how each request ended, and ends when it is cancelled."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
import time

import pytest

from engine.config.settings import EngineSettings
from engine.engine import (
    Batch,
    TransferEngine,
    TransferRequest,
    TransferState,
)
from engine.errors import (
    Closed,
    PeerStalled,
    RangeRefused,
    TransferFailed,
    TransportUnavailable,
    UsageError,
)
from engine.memory.joined_buffer import JoinedBuffer
from engine.protocol import wire
from tests.engine.engines import READ, SMALL_SLICES, WRITE, Scripted, pair, ready, serve_once, silent

__all__ = ["pair"]


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


@pytest.mark.parametrize("lengths", [[1], [5000, 1, 0, 4096, 99], [100] * 700, [1 << 20, 3]])
def test_one_range_of_theirs_is_brought_into_many_pieces_of_ours_and_back(
    pair: tuple[TransferEngine, TransferEngine], lengths: list[int]
) -> None:
    target, initiator = pair
    data = random.Random(5).randbytes(sum(lengths))
    theirs = bytearray(b"x" + data + b"x")
    remote = target.register_memory(theirs, writable=True)
    rooms = [bytearray(length) for length in lengths]
    joined = JoinedBuffer("rooms", [memoryview(room) for room in rooms], fillable=True)
    initiator.carry_out([TransferRequest(READ, joined, ready(initiator, target), remote.address + 1)]).raise_failed()
    assert b"".join(rooms) == data
    for room in rooms:
        room.reverse()
    joined = JoinedBuffer("rooms", [memoryview(room) for room in rooms])
    initiator.carry_out([TransferRequest(WRITE, joined, ready(initiator, target), remote.address + 1)]).raise_failed()
    assert theirs == b"x" + b"".join(rooms) + b"x"
    joined = JoinedBuffer("rooms", [memoryview(room) for room in rooms])
    with pytest.raises(UsageError, match="cannot read into"):
        initiator.carry_out([TransferRequest(READ, joined, ready(initiator, target), remote.address)])


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


def test_cancel_ends_a_batch_that_waits_for_a_silent_peer() -> None:
    server = Scripted(silent)
    with TransferEngine(settings=EngineSettings(slice_size=4096)) as engine:
        memory = engine.register_memory(bytearray(100_000))
        segment = engine.open_segment(server.name)
        batch: Batch = engine.submit_transfer([TransferRequest(READ, memory, segment, 4096) for _ in range(50)])
        assert not batch.wait(0.2)
        assert not engine.unregister_memory(memory, timeout=0.0)
        batch.cancel()
        assert batch.wait(60)
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


def test_an_engine_ends_with_transfers_under_way() -> None:
    server = Scripted(silent)
    engine = TransferEngine()
    batch = engine.submit_transfer([TransferRequest(READ, bytearray(10), engine.open_segment(server.name), 4096)])
    engine.close()
    assert batch.wait(60)
    assert batch.status(0).state is TransferState.CANCELLED
    server.close()
    engine.close()


@pytest.mark.parametrize("length", [1000, 3 << 20])
def test_no_byte_of_a_synchronous_read_comes_after_close(length: int) -> None:
    """A read of one lane, or of slices that were all taken, was not broken off."""
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
    assert asked.wait(60)
    engine.close()
    thread.join(60)
    assert [type(error) for error in errors] == [Closed]
    server.close()
