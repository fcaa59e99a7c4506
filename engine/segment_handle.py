"""A segment that was opened: its descriptor, and where its servers are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.lanes import Peer
from engine.tcp_client import Endpoint

if TYPE_CHECKING:
    from engine.metadata.base import Resolved
    from engine.segment import BufferDescriptor, SegmentDescriptor
    from engine.settings import EngineSettings


class Segment:
    """What ``TransferEngine.open_segment`` returns. Thread-safe; valid until the engine is closed."""

    def __init__(self, name: str, resolve: Callable[[], Resolved], settings: EngineSettings) -> None:
        """Made by ``TransferEngine``; raises as ``resolve``."""
        self.name = name
        self._resolve = resolve
        self._settings = settings
        self._lock = threading.Lock()
        self._resolved = resolve()
        self.peer = Peer(name, self._locate, settings)

    def __repr__(self) -> str:
        return f"Segment({self.name!r})"

    @property
    def descriptor(self) -> SegmentDescriptor:
        """The segment's descriptor as it was last read."""
        return self._resolved.descriptor

    @property
    def buffers(self) -> tuple[BufferDescriptor, ...]:
        """The registered buffers that the descriptor lists: their addresses are what requests name."""
        return self.descriptor.buffers

    def refresh(self) -> SegmentDescriptor:
        """Read the descriptor again. Raises ``SegmentNotFound``, ``MetadataUnavailable`` or a ``RemoteError``."""
        found = self._resolve()
        with self._lock:
            self._resolved = found
        return found.descriptor

    def _locate(self, again: bool) -> Endpoint:  # noqa: FBT001 - the signature that Peer asks for
        if again:
            self.refresh()
        with self._lock:
            found = self._resolved
        version = min(found.descriptor.tcp_proto_version, self._settings.protocol_version)
        return Endpoint(self.name, found.host, found.descriptor.tcp_data_port, version)
