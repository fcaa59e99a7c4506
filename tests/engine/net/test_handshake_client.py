"""One request, one answer: what comes in pieces, late, wrong or not at all."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from engine.errors import PeerStalled, PeerUnreachable, RemoteProtocolError
from engine.net.handshake_client import exchange, fetch_descriptor
from engine.protocol.handshake import Message, MessageType, encode
from tests.ports import closed_port


def answering(*pieces: bytes) -> int:
    """A server for one client that answers with these, one after the other, or with silence; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listener, listener.accept()[0] as sock:
            sock.recv(100)
            for piece in pieces:
                sock.sendall(piece)
                time.sleep(0.01)  # so that they come one by one
            if pieces:
                sock.shutdown(socket.SHUT_WR)
            sock.recv(1)

    threading.Thread(target=run, daemon=True).start()
    return int(listener.getsockname()[1])


PROBE = Message(MessageType.PROBE)


def test_an_answer_in_pieces_is_put_together() -> None:
    answer = encode(Message(MessageType.PROBE, {"status": "success"}))
    assert exchange("127.0.0.1", answering(answer[:5], answer[5:]), PROBE).body == {"status": "success"}


def test_a_descriptor_that_is_none_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        fetch_descriptor("127.0.0.1", answering(encode(Message(MessageType.METADATA, {"name": 3}))))


def test_silence_is_a_stall() -> None:
    with pytest.raises(PeerStalled):
        exchange("127.0.0.1", answering(), PROBE, timeout=0.2)


def test_what_a_wrong_peer_does_is_named() -> None:
    with pytest.raises(RemoteProtocolError, match="without an answer"):
        exchange("127.0.0.1", answering(b"\x05\0"), PROBE)
    with pytest.raises(RemoteProtocolError, match="type NOTIFY"):
        exchange("127.0.0.1", answering(encode(Message(MessageType.NOTIFY))), PROBE)
    with pytest.raises(PeerUnreachable):
        exchange("127.0.0.1", closed_port(), PROBE)
