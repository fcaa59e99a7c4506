"""The targets of a bench: our engine together with the bare socket loop, and Mooncake's own engine."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import Any

from engine.bench import wheel
from engine.bench.memory import Memory
from engine.bench.socket_loop import SocketTarget
from engine.config.settings import EngineSettings
from engine.engine import P2PHANDSHAKE, TransferEngine
from engine.errors import UsageError
from engine.metadata.urls import open_directory
from engine.net import addresses

BUFFER = "mooncake-bench"
"""The name of a target's buffer, by which initiators know that they may write there; a colon and a port follow."""


@dataclass(frozen=True, slots=True)
class TargetAddress:
    """Where a target's memory is: ``length`` bytes at ``address`` of ``segment``.

    ``socket_port`` of ``host`` is the socket loop's, or 0 where there is none. ``ours`` says that it is there to be
    written to.
    """

    segment: str
    address: int
    length: int
    host: str
    socket_port: int = 0
    ours: bool = True

    def to_json(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return asdict(self)


class Target:
    """Our engine and the socket loop, with the same memory. Serves until ``close``."""

    def __init__(
        self,
        length: int,
        local_hostname: str = "127.0.0.1",
        metadata_server: str = P2PHANDSHAKE,
        protocol: str = "tcp",
        device: str = "",
    ) -> None:
        """Raises as ``TransferEngine``, and ``StorageError`` where there is not enough memory."""
        memory = Memory(length)
        host, _ = addresses.given(local_hostname, 0)
        self._socket = SocketTarget(memoryview(memory.map), host)
        try:
            self._engine = TransferEngine(local_hostname, metadata_server, protocol, device)
        except BaseException:
            self._socket.close()
            raise
        try:
            name = f"{BUFFER}:{self._socket.port}"
            registered = self._engine.register_memory(memory.map, name=name, writable=True)
        except BaseException:
            self.close()
            raise
        self.address = TargetAddress(self._engine.segment_name, registered.address, length, host, self._socket.port)

    def close(self) -> None:
        """Serve no more."""
        self._socket.close()
        self._engine.close()


class WheelTarget:
    """Mooncake's own engine. It serves until its process ends."""

    def __init__(
        self,
        length: int,
        local_hostname: str = "127.0.0.1",
        metadata_server: str = P2PHANDSHAKE,
        protocol: str = "tcp",
        device: str = "",
    ) -> None:
        """Raises as ``wheel.load``."""
        host, _ = addresses.given(local_hostname, 0)
        self._memory = Memory(length)
        self._engine, address = wheel.load(self._memory, local_hostname, host, metadata_server, protocol, device)
        by_name = metadata_server != P2PHANDSHAKE
        segment = local_hostname if by_name else addresses.join(host, self._engine.get_rpc_port())
        self.address = TargetAddress(segment, address, length, host)


def find(segment: str, metadata_server: str) -> TargetAddress:
    """The target that serves as ``segment`` somewhere: a bench's, or the largest buffer of any other process.

    Raises ``UsageError`` where it offers nothing, and as ``TransferEngine.open_segment``.
    """
    directory = open_directory(metadata_server, EngineSettings.load())
    with contextlib.closing(directory):
        found = directory.resolve(segment)
    buffers = sorted(found.descriptor.buffers, key=lambda each: each.length)
    if not buffers:
        raise UsageError(detail=f"segment {segment!r} has no registered memory")
    for each in buffers:
        name, _, port = each.name.partition(":")
        if name == BUFFER and port.isascii() and port.isdigit() and int(port) < 65536:
            return TargetAddress(segment, each.address, each.length, found.host, int(port))
    return TargetAddress(segment, buffers[-1].address, buffers[-1].length, found.host, ours=False)
