"""The TCP channel against peers that behave, and peers that do not."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from engine.errors import PeerStalled, PeerUnreachable, RangeRefused, RemoteProtocolError, UsageError
from engine.memory.address_space import AddressSpace, MemoryBuffer
from engine.protocol import wire
from engine.serving.tcp_server import TcpServer
from engine.transports.base import Channel, PeerAddress
from engine.transports.into_memory import IntoMemory
from engine.transports.tcp import MAX_IN_FLIGHT, TcpTransport
from tests.ports import closed_port

DATA = random.Random(5).randbytes(3 << 20)


class Pieces:
    """A sink with a small reused buffer, as the store's is."""

    def __init__(self, size: int) -> None:
        self.room = bytearray(size)
        self.got = bytearray()

    def buffer(self, remaining: int) -> memoryview:
        return memoryview(self.room)[: min(remaining, len(self.room))]

    def filled(self, count: int) -> None:
        self.got += self.room[:count]


@pytest.fixture(scope="module")
def space() -> AddressSpace:
    return AddressSpace()


@pytest.fixture(scope="module")
def address(space: AddressSpace) -> int:
    return space.register(MemoryBuffer("data", DATA))


@pytest.fixture(scope="module")
def server(space: AddressSpace) -> Iterator[TcpServer]:
    made = TcpServer(space)
    yield made
    made.close()


def peer(port: int, version: int = 2) -> PeerAddress:
    return PeerAddress("127.0.0.1:1", "127.0.0.1", port, protocol_version=version)


def channel_to(script: Callable[[socket.socket], None], *, version: int = 2, stall: float = 20.0) -> Channel:
    """A channel to a server for one client that does what ``script`` says, then closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listener, listener.accept()[0] as sock:
            sock.recv(24)
            script(sock)
            with contextlib.suppress(OSError):  # the channel may be closed by now
                sock.shutdown(socket.SHUT_WR)
                sock.recv(1)

    threading.Thread(target=run, daemon=True).start()
    return TcpTransport(stall_timeout=stall).open(peer(listener.getsockname()[1], version))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20, 4 << 20])
def test_pipelined_reads_arrive_in_order(server: TcpServer, address: int, version: int, size: int) -> None:
    rng = random.Random(size)
    longest = min(len(DATA), size * 1000)
    channel = TcpTransport().open(peer(server.port, version))
    ranges = []
    for _ in range(20):
        length = rng.randint(1, longest)
        ranges.append((rng.randrange(len(DATA) - length + 1), length))
    for at, length in ranges:
        channel.submit(address + at, length)
    for at, length in ranges:
        sink = Pieces(size)
        channel.receive(sink)
        assert sink.got == DATA[at : at + length]
    channel.close()


@pytest.mark.parametrize("version", [1, 2])
def test_a_refused_range_is_a_refusal_in_both_versions(server: TcpServer, version: int) -> None:
    channel = TcpTransport().open(peer(server.port, version))
    channel.submit(1, 5)
    with pytest.raises(RangeRefused):
        channel.receive(Pieces(5))
    with pytest.raises(PeerUnreachable):
        channel.submit(1, 5)


def test_what_came_before_a_refusal_arrives(server: TcpServer, address: int) -> None:
    channel = TcpTransport().open(peer(server.port))
    for at in (address, address, 1, address):
        channel.submit(at, len(DATA))
    for _ in range(2):
        sink = Pieces(1 << 16)
        channel.receive(sink)
        assert sink.got == DATA
    with pytest.raises(RangeRefused):
        channel.receive(Pieces(5))


@pytest.mark.parametrize("sent", [b"", wire.pack_status(0)[:3], wire.pack_status(0), wire.pack_status(0) + b"abc"])
def test_a_peer_that_dies_is_unreachable(sent: bytes) -> None:
    channel = channel_to(lambda sock: sock.sendall(sent))
    channel.submit(1, 5)
    with pytest.raises(PeerUnreachable):
        channel.receive(Pieces(5))


def test_a_peer_of_version_1_that_dies_in_the_middle_is_unreachable() -> None:
    channel = channel_to(lambda sock: sock.sendall(b"abc"), version=1)
    channel.submit(1, 5)
    with pytest.raises(PeerUnreachable):
        channel.receive(Pieces(2))


def test_no_status_breaks_the_protocol() -> None:
    channel = channel_to(lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request"))
    channel.submit(1, 5)
    with pytest.raises(RemoteProtocolError):
        channel.receive(Pieces(5))


@pytest.mark.parametrize("sent", [b"", wire.pack_status(0)[:3], wire.pack_status(0) + b"abc"])
def test_a_silent_peer_is_stalled(sent: bytes) -> None:
    over = threading.Event()

    def script(sock: socket.socket) -> None:
        sock.sendall(sent)
        over.wait(20)

    channel = channel_to(script, stall=0.2)
    channel.submit(1, 5)
    with pytest.raises(PeerStalled):
        channel.receive(Pieces(5))
    over.set()


def test_a_slow_peer_is_not_stalled() -> None:
    def script(sock: socket.socket) -> None:
        for byte in wire.pack_status(0) + b"hello":
            sock.sendall(bytes((byte,)))
            time.sleep(0.3)

    channel = channel_to(script, stall=3.5)
    channel.submit(1, 5)
    sink = Pieces(5)
    channel.receive(sink)
    assert sink.got == b"hello"
    channel.close()


def test_close_from_another_thread_wakes_the_reader() -> None:
    over = threading.Event()
    channel = channel_to(lambda sock: bool(over.wait(20)) and None)
    channel.submit(1, 5)
    threading.Timer(0.2, channel.close).start()
    with pytest.raises(PeerUnreachable, match="was closed"):
        channel.receive(Pieces(5))
    channel.close()
    with pytest.raises(PeerUnreachable, match="was closed"):
        channel.submit(1, 5)
    over.set()


def test_an_error_of_the_sink_passes_through_and_closes(server: TcpServer, address: int) -> None:
    class Full(Pieces):
        def filled(self, count: int) -> None:
            raise BlockingIOError(28, "no space")

    channel = TcpTransport().open(peer(server.port))
    channel.submit(address, 100)
    with pytest.raises(BlockingIOError, match="no space"):
        channel.receive(Full(10))
    with pytest.raises(PeerUnreachable):
        channel.submit(address, 100)


def test_nobody_there() -> None:
    port = closed_port()
    with pytest.raises(PeerUnreachable):
        TcpTransport().open(peer(port))
    assert TcpTransport().usable(peer(port)) == ""
    assert TcpTransport().usable(PeerAddress("s", "h", 0))


def test_misuse(server: TcpServer, address: int) -> None:
    channel = TcpTransport().open(peer(server.port))
    with pytest.raises(UsageError):
        channel.receive(Pieces(1))
    with pytest.raises(UsageError):
        channel.submit(address, 0)
    for _ in range(MAX_IN_FLIGHT):
        channel.submit(address, 1)
    with pytest.raises(UsageError):
        channel.submit(address, 1)
    got = bytearray(MAX_IN_FLIGHT)
    for at in range(MAX_IN_FLIGHT):
        channel.receive(IntoMemory(memoryview(got)[at : at + 1]))
    assert got == DATA[:1] * MAX_IN_FLIGHT
    channel.close()
