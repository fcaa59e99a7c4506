"""The TCP channel against peers that do not behave; what it has in common with others is in ``test_contract``."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

import pytest

from engine.errors import PeerStalled, PeerUnreachable, RemoteProtocolError
from engine.protocol import wire
from engine.transports.base import Channel, PeerAddress
from engine.transports.tcp import TcpTransport
from tests.engine.transports.sinks import Pieces


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
