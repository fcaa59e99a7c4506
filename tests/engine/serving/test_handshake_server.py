"""The handshake server on real sockets: upstream's four requests, silent and rude clients."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from engine.errors import RemoteProtocolError, UsageError
from engine.net.handshake_client import exchange, fetch_descriptor
from engine.protocol.handshake import Decoder, Message, MessageType, encode
from engine.protocol.segment import BufferDescriptor, SegmentDescriptor
from engine.serving import handshake_server
from engine.serving.handshake_server import HandshakeServer

DESCRIPTOR = SegmentDescriptor("127.0.0.1:1", 2, (BufferDescriptor("a", 4096, 10),), tcp_proto_version=2, timestamp="t")
NOTES: list[tuple[str, str]] = []


@pytest.fixture
def server() -> Iterator[HandshakeServer]:
    NOTES.clear()
    made = HandshakeServer(
        lambda: DESCRIPTOR,
        on_notify=lambda name, text: NOTES.append((name, text)),
        clock=lambda: 1000.0,  # nobody is too slow
    )
    made.start()
    yield made
    made.close()


def test_metadata(server: HandshakeServer) -> None:
    assert fetch_descriptor("127.0.0.1", server.port) == DESCRIPTOR


def test_probe_and_notify(server: HandshakeServer) -> None:
    assert exchange("127.0.0.1", server.port, Message(MessageType.PROBE)).body == {"status": "success"}
    note = Message(MessageType.NOTIFY, {"name": "me", "notify_msg": "hello"})
    assert exchange("127.0.0.1", server.port, note).body == {"name": "", "notify_msg": "success"}
    assert NOTES == [("me", "hello")]
    with pytest.raises(RemoteProtocolError):
        exchange("127.0.0.1", server.port, Message(MessageType.NOTIFY, {"name": 3}))


@pytest.mark.parametrize("old_form", [False, True])
def test_connection_is_rejected_in_the_form_it_came(server: HandshakeServer, old_form: bool) -> None:
    answer = exchange("127.0.0.1", server.port, Message(MessageType.CONNECTION, {}, old_form=old_form))
    assert answer.body["reply_msg"]
    assert answer.old_form is old_form


def test_silent_clients_hold_up_nobody(server: HandshakeServer) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
    assert fetch_descriptor("127.0.0.1", server.port) == DESCRIPTOR
    for sock in silent:
        sock.close()


def test_silent_clients_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake_server, "CLIENT_TIMEOUT", 0.1)
    server = HandshakeServer(lambda: DESCRIPTOR)
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
            assert sock.recv(1) == b""
    finally:
        server.close()


def test_a_client_has_its_time_and_no_more() -> None:
    now = [1000.0]
    server = HandshakeServer(lambda: DESCRIPTOR, clock=lambda: now[0])
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
            assert fetch_descriptor("127.0.0.1", server.port) == DESCRIPTOR  # so the other is accepted
            now[0] += handshake_server.CLIENT_TIMEOUT - 0.1
            assert fetch_descriptor("127.0.0.1", server.port) == DESCRIPTOR  # so it has looked at the clock
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
            sock.settimeout(60)
            now[0] += 0.1
            assert fetch_descriptor("127.0.0.1", server.port) == DESCRIPTOR
            assert sock.recv(1) == b""
    finally:
        server.close()


def test_beyond_the_cap_the_oldest_goes(server: HandshakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake_server, "MAX_CLIENTS", 2)
    crowd = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(2)]
    assert fetch_descriptor("127.0.0.1", server.port) == DESCRIPTOR
    assert crowd[0].recv(1) == b""
    for sock in crowd:
        sock.close()


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(8), struct.pack("<Q", 3) + b"\x01[]", b"\xff" * 99]
)
def test_garbage_ends_only_its_own_connection(server: HandshakeServer, garbage: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
        sock.sendall(garbage)
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""
    assert fetch_descriptor("127.0.0.1", server.port) == DESCRIPTOR


def test_a_large_answer_arrives_whole() -> None:
    large = SegmentDescriptor("127.0.0.1:1", 2, tuple(BufferDescriptor("a" * 50, 4096 * n, 10) for n in range(1, 9000)))
    server = HandshakeServer(lambda: large)
    server.start()
    try:
        assert fetch_descriptor("127.0.0.1", server.port) == large
    finally:
        server.close()


def test_request_in_pieces(server: HandshakeServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
        for byte in encode(Message(MessageType.PROBE)):
            sock.sendall(bytes((byte,)))
        decoder, answer = Decoder(peer="p"), None
        while answer is None:
            answer = decoder.feed(sock.recv(3))
        assert answer.type is MessageType.PROBE
        assert sock.recv(1) == b""


def test_close_before_start_and_twice() -> None:
    server = HandshakeServer(lambda: DESCRIPTOR)
    server.close()
    server.close()


def refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_server_that_gets_no_thread_says_so_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    server = HandshakeServer(lambda: DESCRIPTOR)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(UsageError, match="cannot start the thread 'handshake'"):
            server.start()
    server.close()
    assert [failure.name for failure in server.failures] == ["handshake"]


def test_an_error_in_the_serving_thread_does_not_end_it(
    server: HandshakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D1's sibling: what nobody foresaw is counted, and the next client is answered."""
    accept = HandshakeServer._accept
    turns = iter([ValueError("unforeseen"), ValueError("unforeseen")])

    def fails_twice(self: HandshakeServer) -> None:
        error = next(turns, None)
        if error is not None:
            raise error
        accept(self)

    monkeypatch.setattr(HandshakeServer, "_accept", fails_twice)
    assert fetch_descriptor("127.0.0.1", server.port) == DESCRIPTOR
    (failure,) = server.failures
    assert (failure.name, failure.count, failure.error) == ("handshake", 2, "ValueError: unforeseen")


def test_a_client_whose_connection_cannot_be_taken_over_is_closed() -> None:
    """D19's sibling: an error in the new owner left the socket open, with nobody to close it."""
    taken: list[socket.socket] = []

    def broken(sock: socket.socket, message: Message, peer: str) -> bool:
        taken.append(sock)
        raise RuntimeError("can't start new thread")

    server = HandshakeServer(lambda: DESCRIPTOR, on_connection=broken)
    server.start()
    try:
        with pytest.raises(RemoteProtocolError, match="without an answer"):
            exchange("127.0.0.1", server.port, Message(MessageType.CONNECTION, {}))
        assert fetch_descriptor("127.0.0.1", server.port) == DESCRIPTOR
        assert [sock.fileno() for sock in taken] == [-1]
    finally:
        server.close()


def test_a_thread_that_ends_late_closes_what_it_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake_server, "CLOSE_TIMEOUT", 0.01)
    entered, go_on = threading.Event(), threading.Event()

    def told(_name: str, _text: str) -> None:
        entered.set()
        assert go_on.wait(60)

    made = HandshakeServer(lambda: DESCRIPTOR, on_notify=told)
    made.start()
    with socket.create_connection(("127.0.0.1", made.port), timeout=60) as client:
        client.sendall(encode(Message(MessageType.NOTIFY, {"name": "a", "notify_msg": "b"})))
        assert entered.wait(60)
        made.close()
        assert made._listener.fileno() >= 0, "the thread still uses it"
        go_on.set()
        assert made._threads.join(60)
        assert made._listener.fileno() == -1
        with contextlib.suppress(ConnectionResetError):
            while client.recv(1 << 16):
                pass
