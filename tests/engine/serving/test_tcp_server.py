"""The data server on real sockets: order, refusals, garbage, idle crowds, slow peers, and its end."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UsageError
from engine.files.stamps import FileStamp
from engine.memory.address_space import AddressSpace
from engine.memory.buffers import FilesBuffer, MemoryBuffer
from engine.memory.file_spans import FileSpan
from engine.net.rate import RateLimit
from engine.protocol import wire
from engine.protocol.key import showing
from engine.serving import tcp_server
from engine.serving.connections import Change, Life
from engine.serving.tcp_server import TcpServer
from engine.serving.upload_slots import LARGE_BYTES, MIN_PATIENCE, SLOTS
from tests.clocks import Clock

DATA = random.Random(5).randbytes(1 << 20)


class Served:
    """A server with one read-only and one writable buffer."""

    def __init__(self, **options: Any) -> None:
        self.space = AddressSpace()
        self.address = self.space.register(MemoryBuffer("data", DATA))
        self.memory = bytearray(1 << 20)
        self.writable = self.space.register(MemoryBuffer("writable", self.memory, writable=True))
        self.server = TcpServer(self.space, **options)

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.server.port), timeout=60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.server.close()


def exactly(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            break
        data += piece
    return bytes(data)


def status(sock: socket.socket) -> int:
    return wire.unpack_status(exactly(sock, 8), peer="server")


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def no_threads_but(before: set[threading.Thread]) -> bool:
    """Whether all others have ended; one of another test's may end meanwhile, too."""
    return set(threading.enumerate()) <= before


def alive(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(wire.pack_request(served.address, 100))
        assert status(sock) == 0
        assert exactly(sock, 100) == DATA[:100]


def test_read_in_both_versions(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(wire.pack_request(served.address + 7, 1000))
        assert status(sock) == 0
        assert exactly(sock, 1000) == DATA[7:1007]
        sock.sendall(wire.pack_request(served.address, len(DATA), version=1))
        assert exactly(sock, len(DATA)) == DATA
    eventually(lambda: served.server.bytes_sent == 1000 + len(DATA))


def test_header_in_pieces_and_after_a_pause(served: Served) -> None:
    with served.connect() as sock:
        for _ in range(2):
            for byte in wire.pack_request(served.address, 4):
                sock.sendall(bytes((byte,)))
                time.sleep(0.002)
            assert status(sock) == 0
            assert exactly(sock, 4) == DATA[:4]
            time.sleep(3 * tcp_server.LINGER)


def test_a_thousand_tiny_requests_at_once_stay_in_order(served: Served) -> None:
    rng = random.Random(1)
    ranges = [(rng.randrange(len(DATA) - 50), rng.randint(1, 50)) for _ in range(1000)]
    with served.connect() as sock:
        sock.sendall(b"".join(wire.pack_request(served.address + at, length) for at, length in ranges))
        for at, length in ranges:
            assert status(sock) == 0
            assert exactly(sock, length) == DATA[at : at + length]


@pytest.mark.parametrize("version", [1, 2])
def test_write_where_it_is_allowed(served: Served, version: int) -> None:
    payload = random.Random(2).randbytes(500_000)
    with served.connect() as sock:
        sock.sendall(wire.pack_request(served.writable + 3, len(payload), opcode=wire.Opcode.WRITE, version=version))
        sock.sendall(payload[:1000])
        time.sleep(3 * tcp_server.LINGER)
        sock.sendall(payload[1000:] + wire.pack_request(served.writable, 5))
        if version == 2:
            assert status(sock) == 0
        assert status(sock) == 0
        assert exactly(sock, 5) == b"\0\0\0" + payload[:2]
        assert served.memory[3 : 3 + len(payload)] == payload
    assert served.server.bytes_received == len(payload)


def test_write_into_a_read_only_buffer_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_server, "DRAIN_TIMEOUT", 60.0)  # what is left unread would destroy the status
    with served.connect() as sock:
        sock.sendall(wire.pack_request(served.address, len(DATA), opcode=wire.Opcode.WRITE) + bytes(len(DATA)))
        assert status(sock) == 1
        assert sock.recv(1) == b""
    with served.connect() as sock:
        sock.sendall(wire.pack_request(served.address, 10, opcode=wire.Opcode.WRITE, version=1) + bytes(10))
        assert exactly(sock, 1) == b""
    alive(served)


@pytest.mark.parametrize("at", [-1, 1, 1 << 40])
def test_refused_read_ends_the_connection_after_what_came_before(served: Served, at: int) -> None:
    good = wire.pack_request(served.address, len(DATA))
    with served.connect() as sock:
        sock.sendall(good + wire.pack_request(served.address + at, len(DATA)) + good * 100)
        assert status(sock) == 0
        assert exactly(sock, len(DATA)) == DATA
        assert status(sock) == 1
        assert sock.recv(1) == b""
    with served.connect() as sock:
        sock.sendall(wire.pack_request(served.address + at, len(DATA), version=1))
        assert sock.recv(1) == b""
    eventually(lambda: served.server.connections == 0)
    alive(served)


def test_a_refused_peer_that_stays_is_dropped(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_server, "DRAIN_TIMEOUT", 0.1)
    with served.connect() as sock:
        sock.sendall(wire.pack_request(1, 1))
        assert status(sock) == 1
        eventually(lambda: served.server.connections == 0)


@pytest.mark.parametrize(
    "garbage", [b"\xff" * 24, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(16) + b"\x42" * 9000]
)
def test_garbage_ends_only_its_own_connection(served: Served, garbage: bytes) -> None:
    with served.connect() as sock:
        sock.sendall(garbage)
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""
    alive(served)


def test_half_a_header_then_gone(served: Served) -> None:
    served.connect().close()
    with served.connect() as sock:
        sock.sendall(bytes(12))
    alive(served)
    eventually(lambda: served.server.connections == 0)


def test_idle_connections_cost_no_thread(served: Served) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip(f"only {hard} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    try:
        crowd = [served.connect() for _ in range(1000)]
        eventually(lambda: served.server.connections == 1000)
        before = threading.active_count()
        alive(served)
        for sock in crowd[::100]:
            sock.sendall(wire.pack_request(served.address, 3))
            assert status(sock) == 0
            assert exactly(sock, 3) == DATA[:3]
        assert threading.active_count() <= before + tcp_server.MAX_WORKERS
        for sock in crowd:
            sock.close()
        eventually(lambda: served.server.connections == 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_beyond_the_cap_the_longest_idle_goes() -> None:
    served = Served(max_connections=3)
    try:
        first, *others = [served.connect() for _ in range(3)]
        eventually(lambda: served.server.connections == 3)
        alive(served)
        assert first.recv(1) == b""
        for sock in others:
            sock.sendall(wire.pack_request(served.address, 3))
            assert status(sock) == 0
            sock.close()
        first.close()
    finally:
        served.server.close()


def test_one_worker_serves_many_busy_peers_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_server, "FAIR_SHARE", 0.0)
    served = Served(workers=1)
    rounds = 20
    try:
        got: list[int] = []

        def peer() -> None:
            with served.connect() as sock:
                sock.sendall(wire.pack_request(served.address, 100_000) * rounds)
                for _ in range(rounds):
                    assert status(sock) == 0
                    assert exactly(sock, 100_000) == DATA[:100_000]
                    got.append(1)

        threads = [threading.Thread(target=peer) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 8 * rounds
    finally:
        served.server.close()


def test_a_peer_that_takes_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_server, "STALL_TIMEOUT", 0.2)
    served = Served(workers=1)
    big = served.space.register(MemoryBuffer("big", bytes(64 << 20)))
    try:
        with served.connect() as sock:
            sock.sendall(wire.pack_request(big, 64 << 20))
            eventually(lambda: served.server.connections == 0)
        alive(served)
    finally:
        served.server.close()


def test_a_file_that_changed_is_refused_and_one_that_shrinks_ends_the_connection(tmp_path: Path) -> None:
    served = Served()
    path = tmp_path / "f"
    path.write_bytes(DATA)
    stamped = served.space.register(FilesBuffer("f", [FileSpan(str(path), len(DATA), FileStamp.of(path.stat()))]))
    unstamped = served.space.register(FilesBuffer("f", [FileSpan(str(path), len(DATA))]))
    try:
        with served.connect() as sock:
            sock.sendall(wire.pack_request(stamped, len(DATA)))
            assert status(sock) == 0
            assert exactly(sock, len(DATA)) == DATA
            os.truncate(path, 1000)
            sock.sendall(wire.pack_request(stamped, 10))
            assert status(sock) == 1
        with served.connect() as sock:
            sock.sendall(wire.pack_request(unstamped, 2000))
            assert status(sock) == 0
            assert exactly(sock, 2000) == DATA[:1000]
    finally:
        served.server.close()


def test_a_broken_gate_costs_one_connection(tmp_path: Path) -> None:
    served = Served()
    path = tmp_path / "f"
    path.write_bytes(DATA)

    def broken(offset: int, length: int) -> bool:
        raise ZeroDivisionError

    address = served.space.register(FilesBuffer("f", [FileSpan(str(path), len(DATA))], servable=broken))
    try:
        with served.connect() as sock:
            sock.sendall(wire.pack_request(address, 1))
            assert sock.recv(1) == b""
        alive(served)
    finally:
        served.server.close()


def test_close_ends_transfers_and_threads() -> None:
    before = set(threading.enumerate())
    served = Served()
    big = served.space.register(MemoryBuffer("big", bytes(64 << 20)))
    socks = [served.connect() for _ in range(4)]
    for sock in socks:
        sock.sendall(wire.pack_request(big, 64 << 20))
        assert status(sock) == 0
    served.server.close()
    served.server.close()
    eventually(lambda: no_threads_but(before))
    with pytest.raises(OSError):
        served.connect()
    for sock in socks:
        sock.close()


def test_a_steady_reader_may_take_longer_than_the_stall_timeout() -> None:
    """A pause as long as the timeout ends a connection; a short one after a long time does not."""
    clock = Clock()
    made = Served(clock=clock)
    size = 64 << 20
    large = made.space.register(MemoryBuffer("large", bytes(size)))
    with made.connect() as sock:
        sock.sendall(wire.pack_request(large, size))
        assert status(sock) == wire.Status.OK
        life = next(iter(made.server._connections))
        for _ in range(5):
            eventually(lambda: life.deadline == clock.now + tcp_server.STALL_TIMEOUT)  # it has sent some, and waits
            clock.now += 0.6 * tcp_server.STALL_TIMEOUT
            made.server._sweep()
            size -= len(exactly(sock, 8 << 20))
        assert len(exactly(sock, size)) == size
    made.server.close()


def read_through(served: Served, host: str, address: int) -> socket.socket:
    """A peer at ``host`` that has asked for 64 MiB and has not taken it yet."""
    sock = socket.create_connection(("127.0.0.1", served.server.port), timeout=60, source_address=(host, 0))
    sock.sendall(wire.pack_request(address, 64 << 20))
    return sock


def test_slow_receivers_do_not_hold_a_healthy_one() -> None:
    """D9: the slots of slow sends came free only when somebody asked for something more."""
    clock = Clock()
    served = Served(clock=clock)
    big = served.space.register(MemoryBuffer("big", bytes(64 << 20)))
    with contextlib.ExitStack() as stack:
        stack.callback(served.server.close)
        quick = stack.enter_context(served.connect())
        quick.sendall(wire.pack_request(served.address, LARGE_BYTES))
        assert status(quick) == 0
        assert exactly(quick, LARGE_BYTES) == DATA[:LARGE_BYTES]
        eventually(lambda: served.server.bytes_sent == LARGE_BYTES)
        for number in range(SLOTS):
            slow = stack.enter_context(read_through(served, f"127.0.0.{number + 2}", big))
            assert status(slow) == 0  # it has a slot, and takes no more than this
        healthy = stack.enter_context(read_through(served, "127.0.0.99", big))
        eventually(lambda: served.server._uploads.due < float("inf"))  # it waits for a slot
        healthy.setblocking(False)
        with pytest.raises(BlockingIOError):
            healthy.recv(1, socket.MSG_PEEK)
        healthy.settimeout(60)
        clock.now += 2 * MIN_PATIENCE  # less than it takes for a send without any progress to be noticed
        assert status(healthy) == 0
        assert len(exactly(healthy, 64 << 20)) == 64 << 20


def refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_server_that_gets_no_more_threads_serves_everybody_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """D1: at a limit of processes the watching thread must not die, nor ``close`` raise."""
    served = Served()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            for _ in range(3):
                alive(served)
            with served.connect() as first, served.connect() as second:
                for sock in (first, second, first):
                    sock.sendall(wire.pack_request(served.address, 100))
                    assert status(sock) == 0
                    assert exactly(sock, 100) == DATA[:100]
        alive(served)
    finally:
        served.server.close()


class Gate(MemoryBuffer):
    """Memory that is not ready until somebody says so."""

    def __init__(self) -> None:
        super().__init__("gate", DATA)
        self.asked, self.open = threading.Event(), threading.Event()

    def ready(self, offset: int, length: int) -> bool:
        self.asked.set()
        return self.open.wait(30)


def test_a_thread_that_is_refused_is_told_to_the_owner(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """D1: who waits for a worker that cannot be started is served by another, and the status can say so."""
    assert served.server.failures == ()
    gate = Gate()
    gated = served.space.register(gate)
    with served.connect() as first, served.connect() as second:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            first.sendall(wire.pack_request(gated, 1))
            assert gate.asked.wait(30)
            second.sendall(wire.pack_request(served.address, 1))
            eventually(lambda: bool(served.server.failures))
        gate.open.set()
        for sock in (first, second):
            assert status(sock) == 0
            assert exactly(sock, 1) == DATA[:1]
    (failure,) = served.server.failures
    assert (failure.name, failure.error) == ("data worker", "RuntimeError: can't start new thread")


def test_a_server_that_gets_no_thread_at_all_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """D1: the constructor says so, and holds no port."""
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(UsageError, match="cannot start the thread"):
        Served()


def test_an_error_in_the_watching_thread_does_not_end_it(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """D1: what nobody foresaw is counted, and the next connection is served."""
    accept = TcpServer._accept
    turns = iter([ValueError("unforeseen"), ValueError("unforeseen")])

    def fails_twice(server: TcpServer) -> None:
        error = next(turns, None)
        if error is not None:
            raise error
        accept(server)

    monkeypatch.setattr(TcpServer, "_accept", fails_twice)
    alive(served)
    (failure,) = served.server.failures
    assert (failure.name, failure.count, failure.error) == ("data watch", 2, "ValueError: unforeseen")


def test_the_sweep_looks_at_no_answer_that_a_worker_may_end(served: Served) -> None:
    """D16: a worker ends it without the lock, so what the sweep needs to know lies outside of it."""

    class Resumed(Life):
        slot = True

        @property
        def answer(self) -> object:
            raise AssertionError("it was looked at")

    one: Any = Resumed(1 << 20)
    one.deadline = served.server._clock() + 3600
    connections = served.server._connections
    with served.server._lock:
        connections.add(one)
        for change in (Change.READY, Change.PAUSE, Change.READY):
            connections.change(one, change)
    assert served.server._sweep()
    with served.server._lock:
        connections.change(one, Change.CLOSE)
    assert not served.server._sweep()


def test_close_waits_for_no_limit() -> None:
    """D10: who keeps to a limit pays the whole debt, but not to a server that closes."""
    before = set(threading.enumerate())
    served = Served(upload_limit=RateLimit(1))
    with served.connect() as sock:
        sock.sendall(wire.pack_request(served.address, len(DATA)))
        assert status(sock) == 0  # from now on it waits, for hours
        served.server.close()
        eventually(lambda: no_threads_but(before))


KEY = "5a" * 16


@pytest.fixture
def guarded() -> Iterator[Served]:
    made = Served(key=KEY)
    yield made
    made.server.close()


def test_who_shows_the_key_is_served(guarded: Served) -> None:
    with guarded.connect() as sock:
        sock.sendall(showing(KEY) + wire.pack_request(guarded.address, 100))
        assert status(sock) == 0
        assert exactly(sock, 100) == DATA[:100]
        sock.sendall(wire.pack_request(guarded.address, 100, version=1))
        assert exactly(sock, 100) == DATA[:100]


def test_a_key_may_come_in_pieces(guarded: Served) -> None:
    with guarded.connect() as sock:
        for byte in showing(KEY):
            sock.sendall(bytes((byte,)))
            time.sleep(0.001)
        time.sleep(3 * tcp_server.LINGER)
        sock.sendall(wire.pack_request(guarded.address, 100))
        assert status(sock) == 0
        assert exactly(sock, 100) == DATA[:100]


@pytest.mark.parametrize("shown", [b"", showing("00" * 16)])
def test_a_stranger_who_knows_the_address_is_refused(guarded: Served, shown: bytes) -> None:
    with guarded.connect() as sock:
        sock.sendall(shown + wire.pack_request(guarded.address, 100))
        assert status(sock) == wire.Status.ADDRESS_REJECTED
        assert exactly(sock, 100) == b""
    with guarded.connect() as sock:
        sock.sendall(shown + wire.pack_request(guarded.address, 100, version=1))
        assert exactly(sock, 100) == b""
    with guarded.connect() as sock:
        sock.sendall(shown + wire.pack_request(guarded.writable, 4, opcode=wire.Opcode.WRITE) + b"evil")
        assert status(sock) == wire.Status.ADDRESS_REJECTED
    assert not any(guarded.memory)
    assert guarded.server.bytes_sent == 0


def test_strangers_push_out_strangers_only(guarded: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_server, "MAX_STRANGERS", 3)
    with contextlib.ExitStack() as stack:
        friend = stack.enter_context(guarded.connect())
        friend.sendall(showing(KEY) + wire.pack_request(guarded.address, 100))
        assert exactly(friend, 108)[8:] == DATA[:100]
        strangers = [stack.enter_context(guarded.connect()) for _ in range(8)]
        eventually(lambda: guarded.server.connections <= 4)
        assert exactly(strangers[0], 1) == b""  # the oldest went first
        friend.sendall(wire.pack_request(guarded.address, 100))
        assert exactly(friend, 108)[8:] == DATA[:100]


def test_a_watch_that_ends_late_closes_what_it_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_server, "CLOSE_TIMEOUT", 0.01)
    entered, go_on = threading.Event(), threading.Event()

    def slow(_: TcpServer) -> None:
        entered.set()
        assert go_on.wait(60)

    monkeypatch.setattr(TcpServer, "_accept", slow)
    server = Served().server
    with socket.create_connection(("127.0.0.1", server.port), timeout=60):
        assert entered.wait(60)
        server.close()
        assert server._listener.fileno() >= 0, "the thread still uses it"
        go_on.set()
        assert server._threads.join(60)
    assert server._listener.fileno() == -1
