from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from engine.errors import UsageError
from engine.net.connect import connect
from engine.net.sockets import listen
from engine.serving.segment_server import SegmentServer
from engine.transports.base import PeerAddress
from engine.transports.tcp import TcpTransport
from tests.ports import closed_port, reserved_port


class Turns:
    """Each address in turn, whatever the peer."""

    def __init__(self, *sources: str) -> None:
        self.sources = list(sources)
        self.bad: list[tuple[str, str]] = []

    def next(self, peer: str) -> str:
        self.sources.append(self.sources.pop(0))
        return self.sources[-1]

    def failed(self, peer: str, source: str) -> None:
        self.bad.append((peer, source))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def come_from(listener: socket.socket, turns: Turns, count: int) -> list[str]:
    found = []
    for _ in range(count):
        with connect("127.0.0.1", listener.getsockname()[1], timeout=60, sources=turns):
            accepted, address = listener.accept()
            accepted.close()
            found.append(address[0])
    return found


def test_connections_come_from_the_addresses_in_turn(listener: socket.socket) -> None:
    # All of 127.0.0.0/8 is this host's on Linux.
    assert come_from(listener, Turns("127.0.0.2", "127.0.0.3"), 3) == ["127.0.0.2", "127.0.0.3", "127.0.0.2"]
    assert come_from(listener, Turns(""), 1) == ["127.0.0.1"]


def test_an_address_that_cannot_be_bound_is_left_to_the_kernel(listener: socket.socket) -> None:
    turns = Turns("192.0.2.77")
    assert come_from(listener, turns, 1) == ["127.0.0.1"]
    assert turns.bad == [("127.0.0.1", "192.0.2.77")]


def test_a_peer_that_refuses_is_no_fault_of_the_address() -> None:
    port = closed_port()
    turns = Turns("127.0.0.2")
    with pytest.raises(ConnectionRefusedError):
        connect("127.0.0.1", port, timeout=60, sources=turns)
    assert turns.bad == []


def test_the_transport_binds_what_it_is_told(listener: socket.socket) -> None:
    seen: list[str] = []

    def accept() -> None:
        accepted, address = listener.accept()
        accepted.close()
        seen.append(address[0])

    accepting = threading.Thread(target=accept)
    accepting.start()
    transport = TcpTransport(sources=Turns("127.0.0.9"))
    transport.open(PeerAddress("127.0.0.1:1", "127.0.0.1", listener.getsockname()[1])).close()
    accepting.join(60)
    assert seen == ["127.0.0.9"]


def test_ports_are_taken_from_a_range_until_none_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"no port of 127.0.0.1 between {port} and {port} can be had"):
            listen("127.0.0.1", 0, among=range(port, port + 1))


def test_a_segments_servers_are_in_the_range() -> None:
    first = reserved_port(4)
    ports = range(first, first + 4)
    with SegmentServer("127.0.0.1", ports=ports) as server:
        assert {server.rpc_port, server.data_port} <= set(ports)
