"""The client's side of the handshake: one request, one answer, one connection."""

from __future__ import annotations

import contextlib
import socket
import time

from engine.errors import PeerStalled, PeerUnreachable, RemoteProtocolError
from engine.net import addresses, sockets
from engine.protocol.handshake import Decoder, Message, MessageType, encode
from engine.protocol.segment import SegmentDescriptor

TIMEOUT = 5.0
"""Seconds for a whole exchange, connecting included."""


def exchange(host: str, rpc_port: int, message: Message, *, timeout: float = TIMEOUT) -> Message:
    """Send ``message`` and return the answer. Raises ``PeerUnreachable``, ``PeerStalled``, ``RemoteProtocolError``."""
    peer = addresses.join(host, rpc_port)
    deadline = time.monotonic() + timeout
    decoder = Decoder(peer=peer)
    answer = None
    try:
        with sockets.connected(host, rpc_port, timeout=timeout) as sock:
            sock.sendall(encode(message))
            while answer is None:
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                data = sock.recv(1 << 16)
                if not data:
                    raise RemoteProtocolError(peer=peer, detail="it closed without an answer")
                answer = decoder.feed(data)
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
    except TimeoutError:
        raise PeerStalled(peer=peer, seconds=timeout) from None
    except OSError as error:
        raise PeerUnreachable(peer=peer, detail=error.strerror or str(error), errno=error.errno or 0) from None
    if answer.type is not message.type:
        raise RemoteProtocolError(peer=peer, detail=f"an answer of type {answer.type.name}")
    return answer


def fetch_descriptor(host: str, rpc_port: int, *, timeout: float = TIMEOUT) -> SegmentDescriptor:
    """The descriptor of the segment whose handshake server is at ``host:rpc_port``. Raises as ``exchange``."""
    answer = exchange(host, rpc_port, Message(MessageType.METADATA), timeout=timeout)
    return SegmentDescriptor.from_json(answer.body, peer=addresses.join(host, rpc_port))
