"""What a client of the pooled store is started with."""

from __future__ import annotations

from dataclasses import dataclass

from engine.metadata.handshake import URL as P2PHANDSHAKE
from engine.rpc.messages import DEFAULT_TENANT

DEFAULT_SEGMENT = 16 << 20
"""Bytes that a client gives to the pool, upstream's default."""

MIN_SEGMENT = 4096
"""A smaller piece of memory is a slip: a size in MiB, say."""

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
    ports: range | None = None
    """From which the servers' ports are taken where nothing else says; any otherwise."""
