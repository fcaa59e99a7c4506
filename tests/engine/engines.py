"""Two engines, and a peer whose data port does what a script says."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from engine.config.settings import EngineSettings
from engine.engine import (
    Opcode,
    Segment,
    TransferEngine,
)
from engine.errors import RemoteProtocolError
from engine.protocol import wire
from engine.protocol.segment import BufferDescriptor, SegmentDescriptor
from engine.serving.handshake_server import HandshakeServer

READ, WRITE = Opcode.READ, Opcode.WRITE
SMALL_SLICES = EngineSettings(slice_size=4096, retries=3, connect_timeout=60.0, stall_timeout=60.0)


@pytest.fixture(params=[2, 1], ids=["v2", "v1"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[TransferEngine, TransferEngine]]:
    """A target that speaks up to this version, and an initiator that cuts requests into small slices."""
    spoken = EngineSettings(protocol_version=request.param)
    with TransferEngine(settings=spoken) as target, TransferEngine(settings=SMALL_SLICES) as initiator:
        yield target, initiator


def ready(initiator: TransferEngine, target: TransferEngine) -> Segment:
    return initiator.open_segment(target.segment_name)


class Scripted:
    """A segment whose data port does to each connection what a script says."""

    def __init__(
        self, *steps: Callable[[socket.socket], None], version: int = 2, buffers: tuple[BufferDescriptor, ...] = ()
    ) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.accepted = 0
        self._steps = steps
        port = self.listener.getsockname()[1]
        self.handshake = HandshakeServer(
            lambda: SegmentDescriptor("scripted", port, buffers=buffers, tcp_proto_version=version), "127.0.0.1", 0
        )
        self.handshake.start()
        self.name = f"127.0.0.1:{self.handshake.port}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            step = self._steps[min(self.accepted, len(self._steps) - 1)]
            self.accepted += 1
            threading.Thread(target=self._do, args=(step, sock), daemon=True).start()

    @staticmethod
    def _do(step: Callable[[socket.socket], None], sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError, RemoteProtocolError):  # anybody may knock at a port
            step(sock)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(5)
        self.handshake.close()


def serve(sock: socket.socket) -> None:
    while header := sock.recv(wire.HEADER_LENGTH, socket.MSG_WAITALL):
        request = wire.unpack_request(header, peer="client")
        sock.sendall(wire.pack_status(0) + b"s" * request.length)


def hang_up(sock: socket.socket) -> None:
    header = sock.recv(wire.HEADER_LENGTH, socket.MSG_WAITALL)
    length = wire.unpack_request(header, peer="client").length
    sock.sendall(wire.pack_status(0) + b"?" * (length // 2))


def silent(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


def serve_once(sock: socket.socket) -> None:
    header = sock.recv(wire.HEADER_LENGTH, socket.MSG_WAITALL)
    sock.sendall(wire.pack_status(0) + b"s" * wire.unpack_request(header, peer="client").length)


class OldMemory:
    """Memory behind a server like upstream's up to 0.3.9: version 1, no checks, one request to a connection."""

    BASE = 4096

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.buffer = BufferDescriptor("old", self.BASE, size)

    def serve(self, sock: socket.socket) -> None:
        request = wire.unpack_request(sock.recv(wire.HEADER_LENGTH, socket.MSG_WAITALL), peer="client")
        at = request.address - self.BASE
        if request.opcode is Opcode.READ:
            sock.sendall(self.data[at : at + request.length])
            return
        body = memoryview(self.data)[at : at + request.length]
        while body:
            count = sock.recv_into(body)
            if not count:
                return
            body = body[count:]
