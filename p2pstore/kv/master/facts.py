"""What the master knows of a key, of a caller and of the pool, as ``why`` reads it. Pure.

Times are seconds: ``..._ago`` and ``silent`` count back from now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.net import addresses


class SegmentFact(NamedTuple):
    """Memory in the pool; ``silent``: since its client's last ping; ``suspected``: since then it failed somebody.

    ``drained``: a job empties it, or did, so nothing new is put there.
    """

    name: str
    endpoint: str
    client: str
    size: int
    used: int
    silent: float
    suspected: bool = False
    drained: bool = False


class ReplicaFact(NamedTuple):
    """One replica of a key; ``where`` is memory or disk, ``silent`` and ``suspected`` as of its segment."""

    endpoint: str
    where: str
    size: int
    whole: bool
    silent: float
    suspected: bool = False


class EventFact(NamedTuple):
    """The last that happened to a key; ``what`` is a word of the pool's story, ``who`` a client's address, or empty."""

    what: str
    ago: float
    who: str = ""
    detail: str = ""


@dataclass(frozen=True)
class KeyFacts:
    """One key of one tenant.

    ``busy``: it is being copied or moved. ``aside``: whoever holds it is absent, and may come back. ``others`` are
    tenants that have it, ``known`` some keys that are there.
    """

    key: str
    tenant: str
    replicas: Sequence[ReplicaFact] = ()
    leased_for: float = 0.0
    busy: bool = False
    event: EventFact | None = None
    aside: bool = False
    others: Sequence[str] = ()
    known: Sequence[str] = ()


@dataclass(frozen=True)
class CallerFacts:
    """What was called over one connection, or over several of one host and version: ``connected`` of them are open.

    ``address`` is HOST:PORT, or the host alone where there are several. ``malformed`` counts what was no call at all,
    ``turned_away`` for which of the reasons of ``advice.ENDED`` it was refused or cut off.
    """

    address: str
    version: str
    connected: int = 1
    connections: int = 1
    last_ago: float = 0.0
    calls: int = 0
    failures: Mapping[int, int] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)
    malformed: int = 0
    turned_away: Mapping[str, int] = field(default_factory=dict)
    lookups: int = 0
    found: int = 0
    tenants: Sequence[str] = ()

    @property
    def spoke(self) -> bool:
        """Whether anything came; a probe connects and says nothing."""
        return bool(self.calls or self.malformed or self.unknown or self.turned_away)


@dataclass(frozen=True)
class PoolFacts:
    """All of it.

    ``listens`` is the master's address, ``client_ttl`` what it waits for a ping, ``not_kept`` why its state directory
    takes nothing.
    """

    listens: str
    up: float
    segments: Sequence[SegmentFact] = ()
    keys: int = 0
    puts: int = 0
    refused: int = 0
    evicted: int = 0
    client_ttl: float = 10.0
    not_kept: str = ""
    tenants: Sequence[str] = ()

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in self.segments)

    @property
    def used(self) -> int:
        """Bytes of all segments that values take."""
        return sum(segment.used for segment in self.segments)


def by_host(callers: Iterable[CallerFacts]) -> list[CallerFacts]:
    """The connections of each host and version as one: a client opens several, and others again and again."""
    groups: dict[tuple[str, str], list[CallerFacts]] = {}
    for caller in callers:
        groups.setdefault((host_of(caller.address), caller.version), []).append(caller)
    return [found[0] if len(found) == 1 else _together(host, found) for (host, _), found in groups.items()]


def host_of(address: str) -> str:
    """The host of an address, which may have a port."""
    try:
        return addresses.parse(address, 0)[0]
    except addresses.BadAddress:
        return address


def _together(host: str, found: Sequence[CallerFacts]) -> CallerFacts:
    failures: Counter[int] = Counter()
    unknown: Counter[str] = Counter()
    turned_away: Counter[str] = Counter()
    for each in found:
        failures.update(each.failures)
        unknown.update(each.unknown)
        turned_away.update(each.turned_away)
    return CallerFacts(
        address=host,
        version=found[0].version,
        connected=sum(each.connected for each in found),
        connections=sum(each.connections for each in found),
        last_ago=min(each.last_ago for each in found),
        calls=sum(each.calls for each in found),
        failures=failures,
        unknown=unknown,
        malformed=sum(each.malformed for each in found),
        turned_away=turned_away,
        lookups=sum(each.lookups for each in found),
        found=sum(each.found for each in found),
        tenants=sorted({tenant for each in found for tenant in each.tenants}),
    )
