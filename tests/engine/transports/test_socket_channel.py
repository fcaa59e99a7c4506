"""What channels over a socket have in common, on a pair of sockets and the smallest protocol: bytes of a number."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from engine.errors import PeerStalled, PeerUnreachable, UsageError
from engine.memory.region import Region
from engine.net import sockets
from engine.transports.base import Sink
from engine.transports.socket_channel import SocketChannel
from tests.engine.transports.sinks import Pieces, Unwilling


class Echo(SocketChannel):
    """Sends the address as one byte; whatever comes back is the range."""

    max_in_flight = 3

    def _request(self, address: int, length: int) -> bytes:
        return bytes((address,)) * length

    def _receive(self, sink: Sink, address: int, length: int) -> None:
        try:
            data = self._sock.recv(length, socket.MSG_WAITALL)
        except OSError as error:
            raise self._failed(error) from None
        if len(data) < length:
            raise self._gone(f"{length - len(data)} bytes of {address} are missing")
        sink.buffer(length)[:] = data
        sink.filled(length)

    @property
    def fd(self) -> int:
        """The descriptor; -1 once it is closed."""
        return self._sock.fileno()


@pytest.fixture
def pair() -> Iterator[tuple[Echo, socket.socket]]:
    """A channel that waits for 0.1 s, and its peer."""
    ours, theirs = socket.socketpair()
    sockets.set_timeouts(ours, receive=0.1, send=0.1)
    channel = Echo(ours, "p", stall_timeout=0.1)
    with theirs:
        yield channel, theirs
    channel.close()


def test_requests_are_answered_in_their_order(pair: tuple[Echo, socket.socket]) -> None:
    channel, peer = pair
    for address in (7, 8, 9):
        channel.submit(address, 2)
    assert peer.recv(6, socket.MSG_WAITALL) == b"\7\7\x08\x08\x09\x09"
    peer.sendall(b"aabbcc")
    sink = Pieces()
    for _ in range(3):
        channel.receive(sink)
    assert sink.got == b"aabbcc"


def test_a_limit_on_what_is_under_way(pair: tuple[Echo, socket.socket]) -> None:
    channel, peer = pair
    for _ in range(channel.max_in_flight):
        channel.submit(7, 1)
    with pytest.raises(UsageError, match="request 4 of 1 bytes"):
        channel.submit(7, 1)
    peer.sendall(b"a")
    channel.receive(Pieces())
    channel.submit(7, 1)


def test_a_place_is_let_go_at_once_whatever_follows(pair: tuple[Echo, socket.socket]) -> None:
    channel, _ = pair
    into = bytearray(2)
    channel.submit(7, 2, Region.of(into))
    into.append(1)
    with pytest.raises(UsageError):
        channel.submit(7, 0, Region.of(into))
    into.append(1)
    channel.close()
    with pytest.raises(PeerUnreachable):
        channel.submit(7, len(into), Region.of(into))
    into.append(1)


def test_a_timeout_of_the_socket_is_a_stalled_peer(pair: tuple[Echo, socket.socket]) -> None:
    channel, _ = pair
    channel.submit(7, 1)
    with pytest.raises(PeerStalled, match=r"0\.1"):
        channel.receive(Pieces())
    assert channel.fd == -1


def test_a_peer_that_takes_no_request_has_stalled_too(pair: tuple[Echo, socket.socket]) -> None:
    channel, _ = pair
    with pytest.raises(PeerStalled):
        channel.submit(7, 64 << 20)
    assert channel.fd == -1


def test_an_error_of_the_socket_is_told_in_its_words(pair: tuple[Echo, socket.socket]) -> None:
    channel, peer = pair
    peer.close()
    with pytest.raises(PeerUnreachable, match="Broken pipe"):
        channel.submit(7, 1)
    with pytest.raises(PeerUnreachable, match="was closed"):
        channel.submit(7, 1)


def test_an_error_while_receiving_closes_and_loses_the_rest(pair: tuple[Echo, socket.socket]) -> None:
    channel, peer = pair
    channel.submit(7, 1)
    channel.submit(7, 1)
    peer.sendall(b"ab")
    with pytest.raises(BlockingIOError):
        channel.receive(Unwilling("filled"))
    assert channel.fd == -1
    with pytest.raises(PeerUnreachable, match="was closed"):
        channel.receive(Pieces())


def test_an_idle_channel_is_closed_at_once(pair: tuple[Echo, socket.socket]) -> None:
    channel, peer = pair
    channel.close()
    assert channel.fd == -1
    assert peer.recv(1) == b""


def test_a_busy_channel_keeps_its_descriptor_until_its_user_has_left(pair: tuple[Echo, socket.socket]) -> None:
    """Else the number could name another file while the user is still in a system call."""
    channel, peer = pair
    seen: list[int] = []

    class Closing(Pieces):
        def buffer(self, remaining: int) -> memoryview:
            closer = threading.Thread(target=channel.close)
            closer.start()
            closer.join(60)
            seen.append(channel.fd)
            return super().buffer(remaining)

    channel.submit(7, 1)
    peer.sendall(b"a")
    assert peer.recv(1) == b"\7"
    channel.receive(Closing())
    assert seen[0] >= 0
    assert channel.fd == -1
    assert peer.recv(1) == b""


def test_our_own_close_is_not_blamed_on_the_peer() -> None:
    ours, theirs = socket.socketpair()
    channel = Echo(ours, "p", stall_timeout=60)
    channel.submit(7, 2)
    closer = threading.Timer(0.05, channel.close)
    with theirs:
        theirs.sendall(b"a")
        closer.start()
        with pytest.raises(PeerUnreachable, match="the channel was closed"):
            channel.receive(Pieces())
    closer.join()
