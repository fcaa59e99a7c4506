"""What a client of the pooled store is started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.metadata.handshake import URL as P2PHANDSHAKE
from engine.rpc.messages import DEFAULT_TENANT

DEFAULT_SEGMENT = 16 << 20
"""Bytes that a client gives to the pool, upstream's default."""

MIN_SEGMENT = 4096
"""A smaller piece of memory is a slip: a size in MiB, say."""

DISK_LIMIT = 16 << 30
"""Bytes that a client's values may have on its disk."""

SETUP_SECONDS = 10.0
"""For the master to be found when a client is made: it may be starting, too."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """See ``Store``, which takes these as its arguments. Sizes in bytes, times in seconds."""

    master: str
    hostname: str = "127.0.0.1"
    segment_size: int = DEFAULT_SEGMENT
    metadata: str = P2PHANDSHAKE
    protocol: str = "tcp"
    devices: str = ""
    bind: str | None = None
    tenant: str = DEFAULT_TENANT
    checksum: str = "xxh3"
    neighbours: bool = True
    setup_timeout: float = SETUP_SECONDS
    disk: Path | None = None
    disk_limit: int = DISK_LIMIT
    ports: range | None = None
    """From which the servers' ports are taken where nothing else says; any otherwise."""
