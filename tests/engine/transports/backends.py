"""Each transport with a peer that serves what a test gives it, and with peers that fail, for the contract suite."""

from __future__ import annotations

import contextlib
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from engine.config.settings import EngineSettings
from engine.memory.address_space import AddressSpace
from engine.memory.buffers import Buffer, FilesBuffer, MemoryBuffer
from engine.memory.file_spans import FileSpan
from engine.net.host_id import host_id
from engine.protocol import wire
from engine.protocol.local_socket import DescriptorRequest, Grant, short_path
from engine.serving.segment_server import SegmentServer
from engine.topology.model import Topology
from engine.transports import local, tcp
from engine.transports.base import Channel, PeerAddress, Transport
from engine.transports.local import LocalTransport
from engine.transports.mock import MockTransport
from engine.transports.rdma.nics import Nics
from engine.transports.rdma.reader import channel as rdma
from engine.transports.rdma.reader.transport import RdmaTransport
from engine.transports.rdma.verbs.fake_verbs import Fabric, FakeDevice, FakeVerbs
from engine.transports.tcp import TcpTransport
from tests.ports import closed_port

STALL = 0.2
"""Seconds after which a channel to a silent peer gives up."""

PATIENT = 60.0
"""Seconds after which any other channel does, so that a slow day is no failure."""


class Backend(ABC):
    """What the suite needs of a transport. Everything that it makes is closed with it."""

    max_in_flight: ClassVar[int] = 0
    """Requests that may be submitted and not received; 0 where any number may."""

    refuses_at: ClassVar[str] = "receive"
    """The call in which a refusal is noticed."""

    def __init__(self, directory: Path) -> None:
        """``directory`` is empty, and the backend's own."""
        self.directory = directory
        self.stack = contextlib.ExitStack()

    @abstractmethod
    def transport(self, *, stall: float = PATIENT) -> Transport:
        """A new transport."""

    @abstractmethod
    def peer(self) -> PeerAddress:
        """The one that serves."""

    @abstractmethod
    def nobody(self) -> PeerAddress:
        """One that looks as if it could be reached, and is not there."""

    @abstractmethod
    def serve(self, data: bytes) -> int:
        """Have the peer serve ``data``; its address."""

    @abstractmethod
    def withdraw(self, address: int) -> None:
        """Serve it no more."""

    @abstractmethod
    def silent(self, stall: float) -> tuple[Channel, int]:
        """A channel to a peer that does not answer, and an address to ask for."""

    @abstractmethod
    def mortal(self, data: bytes) -> tuple[Channel, int, Callable[[], None]]:
        """A channel to a peer that serves ``data`` at an address, and ends in mid-body once it is told to."""

    def open(self, *, stall: float = PATIENT) -> Channel:
        """A channel to the one that serves."""
        return self.kept(self.transport(stall=stall).open(self.peer()))

    def kept(self, channel: Channel) -> Channel:
        """Closed with the backend."""
        self.stack.callback(channel.close)
        return channel

    def close(self) -> None:
        """Close everything."""
        self.stack.close()


class Served(Backend):
    """A peer that is a segment server of this process."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.owner = self.made()

    def made(self) -> SegmentServer:
        """A server."""
        return self.stack.enter_context(SegmentServer())

    def buffer(self, data: bytes) -> Buffer:
        """What a peer of this transport can serve."""
        return MemoryBuffer("data", data)

    def peer(self) -> PeerAddress:
        return self.owner.address_of_self()

    def serve(self, data: bytes) -> int:
        return self.owner.register(self.buffer(data))

    def withdraw(self, address: int) -> None:
        assert self.owner.unregister(address, timeout=PATIENT)

    def mortal(self, data: bytes) -> tuple[Channel, int, Callable[[], None]]:
        return self.open(), self.serve(data), self.owner.close


class Tcp(Served):
    """The data plane of a real server, in version 2."""

    version = wire.LATEST_VERSION
    max_in_flight = tcp.MAX_IN_FLIGHT

    def transport(self, *, stall: float = PATIENT) -> Transport:
        return TcpTransport(stall_timeout=stall)

    def peer(self) -> PeerAddress:
        return replace(super().peer(), protocol_version=self.version)

    def nobody(self) -> PeerAddress:
        return replace(self.peer(), data_port=closed_port())

    def silent(self, stall: float) -> tuple[Channel, int]:
        listener = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        peer = replace(self.peer(), data_port=listener.getsockname()[1])
        return self.kept(self.transport(stall=stall).open(peer)), 1


class TcpVersion1(Tcp):
    """The data plane of a peer that speaks version 1: bodies without a status."""

    version = 1


class Local(Served):
    """Descriptors of files."""

    max_in_flight = local.MAX_IN_FLIGHT

    def made(self) -> SegmentServer:
        return self.stack.enter_context(SegmentServer(local_socket=self.directory / "s" / "local.sock"))

    def buffer(self, data: bytes) -> Buffer:
        path = self.directory / str(len(list(self.directory.iterdir())))
        path.write_bytes(data)
        return FilesBuffer("data", [FileSpan(str(path), len(data))])

    def transport(self, *, stall: float = PATIENT) -> Transport:
        return LocalTransport(stall_timeout=stall)

    def nobody(self) -> PeerAddress:
        return replace(self.peer(), local_socket=str(self.directory / "nobody.sock"))

    def silent(self, stall: float) -> tuple[Channel, int]:
        return self._scripted(stall)[0], 1

    def mortal(self, data: bytes) -> tuple[Channel, int, Callable[[], None]]:
        """A descriptor that was handed over outlives its peer; so half of them are, and no more."""
        channel, listener = self._scripted(PATIENT)
        path = self.directory / "half"
        path.write_bytes(data[: len(data) // 2])

        def run() -> None:
            with listener.accept()[0] as sock, path.open("rb") as file:
                assert DescriptorRequest.unpack(sock.recv(512), peer="p").length == len(data)
                packet = Grant(0, len(data) // 2, more=True).pack()
                socket.send_fds(sock, [packet], [file.fileno()])
                killed.wait(PATIENT)

        killed = threading.Event()
        thread = threading.Thread(target=run)
        thread.start()
        self.stack.callback(thread.join, PATIENT)
        self.stack.callback(killed.set)
        return channel, 1, killed.set

    def _scripted(self, stall: float) -> tuple[Channel, socket.socket]:
        """A channel to a socket that answers nothing by itself, and the socket, which listens."""
        path = self.directory / "scripted.sock"
        listener = self.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        with short_path(path) as name:
            listener.bind(name)
        listener.listen()
        peer = PeerAddress("scripted", "127.0.0.1", 1, host_id=host_id(), local_socket=str(path))
        return self.kept(self.transport(stall=stall).open(peer)), listener


class Rdma(Served):
    """Two segments on fake devices; the handshakes between them are real."""

    max_in_flight = rdma.MAX_IN_FLIGHT
    refuses_at = "submit"

    def __init__(self, directory: Path) -> None:
        self.fabric = Fabric([FakeDevice("a0", "10.1.0.1"), FakeDevice("b0", "10.1.0.2")])
        super().__init__(directory)
        self._ours = self._nics("a0")

    def _nics(self, device: str) -> Nics:
        nics = Nics(FakeVerbs(self.fabric, [device]), EngineSettings(), topology=Topology)
        self.stack.callback(nics.close)
        return nics

    def made(self) -> SegmentServer:
        return self.stack.enter_context(SegmentServer(rdma=self._nics("b0")))

    def transport(self, *, stall: float = PATIENT) -> Transport:
        made = RdmaTransport(self._ours, stall_timeout=stall)
        self.stack.callback(made.close)
        return made

    def nobody(self) -> PeerAddress:
        return replace(self.peer(), segment=f"127.0.0.1:{closed_port()}")

    def silent(self, stall: float) -> tuple[Channel, int]:
        self.fabric.held = True
        return self.open(stall=stall), self.serve(bytes(100))


class Mock(Backend):
    """What a script says."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.space = AddressSpace()
        self.stack.callback(self.space.close)

    def transport(self, *, stall: float = PATIENT, script: str = "") -> Transport:
        return MockTransport(self.space, script, unreachable=["nobody"], stall_seconds=stall)

    def peer(self) -> PeerAddress:
        return PeerAddress("mock", "127.0.0.1", 1)

    def nobody(self) -> PeerAddress:
        return PeerAddress("nobody", "127.0.0.1", 1)

    def serve(self, data: bytes) -> int:
        return self.space.register(MemoryBuffer("data", data))

    def withdraw(self, address: int) -> None:
        assert self.space.unregister(address, timeout=PATIENT)

    def silent(self, stall: float) -> tuple[Channel, int]:
        return self.kept(self.transport(stall=stall, script="s").open(self.peer())), self.serve(bytes(100))

    def mortal(self, data: bytes) -> tuple[Channel, int, Callable[[], None]]:
        channel = self.kept(self.transport(script="d").open(self.peer()))
        return channel, self.serve(data), lambda: None


BACKENDS: dict[str, type[Backend]] = {
    "tcp": Tcp,
    "tcp-version-1": TcpVersion1,
    "local": Local,
    "rdma": Rdma,
    "mock": Mock,
}
