"""What every way to find segments has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from engine.protocol.segment import SegmentDescriptor

MAX_VALUE = 16 << 20
"""Bytes of one value that is read: a descriptor of 100,000 buffers, and room."""


@dataclass(frozen=True, slots=True)
class RpcEndpoint:
    """Where a segment's handshake server is."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class FoundSegment:
    """A segment that was found: its descriptor, and the host that its ports belong to."""

    descriptor: SegmentDescriptor
    host: str
    rpc_port: int


class SegmentDirectory(ABC):
    """Publishes our segment and finds others. Thread-safe."""

    url: str

    @abstractmethod
    def publish(self, descriptor: SegmentDescriptor, rpc: RpcEndpoint) -> None:
        """Let others find the segment. Raises ``MetadataUnavailable`` or ``MetadataRefused``."""

    @abstractmethod
    def withdraw(self, name: str) -> None:
        """Let nobody find it any more. Raises as ``publish``."""

    @abstractmethod
    def endpoint(self, name: str) -> RpcEndpoint:
        """Where the segment's handshake server is. Raises ``SegmentNotFound``, and as ``publish``."""

    @abstractmethod
    def resolve(self, name: str) -> FoundSegment:
        """The segment of this name. Raises ``SegmentNotFound``, ``RemoteError``, and as ``publish``."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections. Twice is harmless."""


class KeyValueStore(ABC):
    """A server that keeps values under keys. Thread-safe; every call ends within seconds."""

    url: str

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """The value, or None. Raises ``MetadataUnavailable`` or ``MetadataRefused``."""

    @abstractmethod
    def put(self, key: str, value: bytes) -> None:
        """Store a value, whatever was there. Raises as ``get``."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a key; an absent one is fine. Raises as ``get``."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections. Twice is harmless."""
