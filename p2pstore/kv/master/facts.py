"""What the master knows of a key, of a caller and of the pool, as ``why`` reads it. Pure.

Times are seconds: ``..._ago`` and ``silent`` count back from now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class SegmentFact(NamedTuple):
    """Memory in the pool; ``silent``: since its client's last ping."""

    name: str
    endpoint: str
    client: str
    size: int
    used: int
    silent: float


class ReplicaFact(NamedTuple):
    """One replica of a key; ``where`` is memory or disk, ``silent`` as of its segment."""

    endpoint: str
    where: str
    size: int
    whole: bool
    silent: float


class EventFact(NamedTuple):
    """The last that happened to a key; ``what`` is a word of the pool's story, ``who`` a client's address, or empty."""

    what: str
    ago: float
    who: str = ""
    detail: str = ""


@dataclass(frozen=True)
class KeyFacts:
    """One key of one tenant.

    ``aside``: whoever holds it is absent, and may come back. ``others`` are tenants that have it, ``known`` some keys
    that are there.
    """

    key: str
    tenant: str
    replicas: Sequence[ReplicaFact] = ()
    leased_for: float = 0.0
    event: EventFact | None = None
    aside: bool = False
    others: Sequence[str] = ()
    known: Sequence[str] = ()


@dataclass(frozen=True)
class CallerFacts:
    """One connection of a client, of the calls that it made."""

    address: str
    version: str
    connected: bool = True
    last_ago: float = 0.0
    calls: int = 0
    failures: Mapping[int, int] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)
    lookups: int = 0
    found: int = 0
    tenants: Sequence[str] = ()


@dataclass(frozen=True)
class PoolFacts:
    """All of it. ``listens`` is the master's address; ``client_ttl`` what it waits for a ping."""

    listens: str
    up: float
    segments: Sequence[SegmentFact] = ()
    keys: int = 0
    puts: int = 0
    refused: int = 0
    evicted: int = 0
    client_ttl: float = 10.0
    tenants: Sequence[str] = ()

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in self.segments)

    @property
    def used(self) -> int:
        """Bytes of all segments that values take."""
        return sum(segment.used for segment in self.segments)
