"""What a node is started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_PORT = 7300
"""The control port on an address that others can reach; the next two are the engine's handshake and data ports."""

PORTS = 3
"""Ports that a node takes, one after the other: control, handshake, data."""


@dataclass(frozen=True)
class NodeOptions:
    """How a node is set up.

    ``state`` is the directory of its catalog, or None to remember nothing. ``host`` and ``port`` are listened on; on
    loopback port 0 is any, elsewhere ``DEFAULT_PORT``. Up to ``last_port``, if there is one, the next three ports are
    tried where these are taken. ``secret`` may be a file, which is read again when it changes.
    ``cache_quota`` is for the bytes of replicas, 0 for none: above ``cache_high`` of it some are deleted, until they
    take ``cache_low`` of it.
    ``keep`` is where streams that are registered are kept; None: with the state. ``ttl`` is its lease's length in
    seconds. The limits are bytes a second, 0 for none; they may be changed while it runs. ``rdma_devices`` are the
    RDMA devices to use, joined by commas, or ``all`` or ``none``. Of ``connections`` to each
    peer 0 are as many as suit the machine and what is got. ``private`` are files and directories that are never
    registered: what only this node and its user may read.
    """

    name: str
    state: Path | None = None
    local_socket: Path | None = None
    keep: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    last_port: int = 0
    advertise: str = ""
    secret: bytes | Path | None = None
    insecure: bool = False
    zone: str = ""
    ttl: int = 10
    connections: int = 0
    upload_limit: int = 0
    download_limit: int = 0
    rdma_devices: str = "all"
    cache_quota: int = 0
    cache_high: float = 0.95
    cache_low: float = 0.8
    private: tuple[Path, ...] = ()

    @property
    def kept(self) -> Path | None:
        """The directory for what this node brings by itself, if it has any."""
        return self.keep or (self.state / "kept" if self.state is not None else None)
