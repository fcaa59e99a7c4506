"""The TCP channel against peers that do not behave; what it has in common with others is in ``test_contract``."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

import pytest

from engine.errors import PeerStalled, PeerUnreachable, RangeRefused, RemoteProtocolError
from engine.protocol import wire
from engine.transports.base import Channel, PeerAddress
from engine.transports.tcp import TcpTransport
from tests.engine.transports.sinks import Pieces


def peer(port: int, version: int = 2) -> PeerAddress:
    return PeerAddress("127.0.0.1:1", "127.0.0.1", port, protocol_version=version)


def channel_to(script: Callable[[socket.socket], None], *, version: int = 2, stall: float = 60.0) -> Channel:
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


DATA = bytes(range(200))


def version_1(replies: int, *, refuses: int | None = None) -> tuple[Channel, list[int]]:
    """A channel to a server of version 1 that closes after so many replies, or resets where another request came early.

    It says of each connection how many it gave. A request at the address ``refuses`` it closes on.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    given: list[int] = []

    def serve(sock: socket.socket) -> None:
        with sock:
            for number in range(replies):
                came = sock.recv(1000)
                if not came:
                    return
                assert len(came) == 24, "it was asked before it had answered"
                request = wire.unpack_request(came, peer="a channel")
                if request.address == refuses:
                    return
                given[-1] = number + 1
                sock.sendall(DATA[request.address : request.address + request.length])

    def run() -> None:
        with listener, contextlib.suppress(OSError):
            while True:
                sock = listener.accept()[0]
                given.append(0)
                serve(sock)

    threading.Thread(target=run, daemon=True).start()
    return TcpTransport().open(peer(listener.getsockname()[1], 1)), given


@pytest.mark.parametrize(("replies", "connections"), [(1, [1, 1, 1, 1, 1, 1]), (4, [4, 2]), (6, [6])])
def test_peers_of_version_1_are_asked_for_one_range_at_a_time_and_may_close_after_each(
    replies: int, connections: list[int]
) -> None:
    channel, given = version_1(replies)
    for at in range(5):
        channel.submit(at * 10, 10)
    sink = Pieces(10)
    for at in range(5):
        channel.receive(sink)
        assert sink.got == DATA[: (at + 1) * 10]
    channel.submit(50, 10)
    channel.receive(sink)
    assert sink.got == DATA[:60]
    channel.close()
    assert given == connections


def test_a_range_that_a_peer_of_version_1_refuses_is_told_over_a_new_connection_too() -> None:
    channel, given = version_1(10, refuses=20)
    sink = Pieces(10)
    for at in (0, 10, 20, 30):
        channel.submit(at, 10)
    channel.receive(sink)
    channel.receive(sink)
    with pytest.raises(RangeRefused, match="refused to serve 10 bytes at address 0x14"):
        channel.receive(sink)
    assert sink.got == DATA[:20]
    assert given == [2, 0]
    with pytest.raises(PeerUnreachable):
        channel.submit(0, 10)


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
        over.wait(60)

    channel = channel_to(script, stall=0.2)
    channel.submit(1, 5)
    with pytest.raises(PeerStalled):
        channel.receive(Pieces(5))
    over.set()


TRIES = 10
"""A try in which the peer itself was late for so long that it had stalled says nothing."""


def test_a_slow_peer_is_not_stalled() -> None:
    stall = 3.5
    for _ in range(TRIES):
        times: list[float] = []
        over = threading.Event()

        def script(sock: socket.socket, times: list[float] = times, over: threading.Event = over) -> None:
            with contextlib.suppress(OSError):  # it was given up
                for byte in wire.pack_status(0) + b"hello":
                    times.append(time.monotonic())
                    sock.sendall(bytes((byte,)))
                    time.sleep(0.3)
            times.append(time.monotonic())
            over.set()

        channel = channel_to(script, stall=stall)
        times.append(time.monotonic())
        channel.submit(1, 5)
        sink = Pieces(5)
        try:
            channel.receive(sink)
        except PeerStalled:
            assert over.wait(60)
            # Before a byte left, and after the next one had: two of these times lie around any wait for one.
            assert max(later - before for before, later in zip(times, times[2:], strict=False)) >= stall
            continue
        assert sink.got == b"hello"
        channel.close()
        return
    pytest.skip("NO TEST OF SLOW PEERS: this machine is slower")
