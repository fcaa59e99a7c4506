"""The interface of the metadata store: etcd v3's model, as little of it as the P2P store needs.

Two implementations, ``memory`` and ``etcd``, pass one contract suite (``tests/p2pstore/metadata``). Keys are text,
values bytes. Every call is bounded by a timeout of its own; each may raise ``MetadataUnavailable`` (retryable: nobody
answers; ``MetadataFull`` from one that writes: there is no space) or ``MetadataRefused`` (user, password, certificate).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key as etcd holds it; ``lease`` is 0 where none is attached."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """Some keys in key order, the store's revision at which they were read, and whether more follow."""

    items: tuple[KeyValue, ...]
    revision: int
    more: bool = False


@dataclass(frozen=True, slots=True)
class Absent:
    """Condition: the key does not exist."""

    key: str


@dataclass(frozen=True, slots=True)
class AbsentPrefix:
    """Condition: no key begins with the prefix."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Condition: the key was last written at this revision."""

    key: str
    mod_revision: int


@dataclass(frozen=True, slots=True)
class HasValue:
    """Condition: the key exists and holds this value."""

    key: str
    value: bytes


Condition = Absent | AbsentPrefix | Unchanged | HasValue


@dataclass(frozen=True, slots=True)
class Put:
    """Write a key; with a lease it goes away when the lease does."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a key; no error if it is not there."""

    key: str


Operation = Put | Delete


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Watch event: the whole prefix as it is now. The first event, and again after a compaction or a wiped store."""

    items: tuple[KeyValue, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Changed:
    """Watch event: a key was written."""

    item: KeyValue


@dataclass(frozen=True, slots=True)
class Removed:
    """Watch event: a key was deleted, or its lease ran out."""

    key: str
    revision: int


WatchEvent = Snapshot | Changed | Removed


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What the server says of itself, and how long it took (seconds)."""

    endpoint: str
    version: str
    seconds: float
    alarms: tuple[str, ...] = ()
    """What it raised the alarm about, as it says it: ``NOSPACE``, ``CORRUPT``."""
    size: int = 0
    """Bytes of its database; 0 where it does not say."""


class MetadataStore(Protocol):
    """A key-value store with transactions, leases and watches."""

    @property
    def url(self) -> str:
        """The URL that another node can be given; it never holds a password."""

    async def get(self, key: str) -> KeyValue | None:
        """One key, or None. Linearizable."""

    async def scan(self, prefix: str, *, limit: int = 0, after: str = "") -> Page:
        """The keys that begin with ``prefix`` and sort after ``after``, at most ``limit`` of them (0: all)."""

    async def get_each(self, keys: Sequence[str]) -> list[KeyValue | None]:
        """Several keys, at one revision and in one call; at most ``MAX_OPERATIONS`` of them. Linearizable."""

    async def scan_each(self, prefixes: Sequence[str], *, limit: int) -> list[Page]:
        """The first ``limit`` keys of each prefix, at one revision and in one call; at most ``MAX_OPERATIONS``."""

    async def commit(self, operations: Sequence[Operation], conditions: Sequence[Condition] = ()) -> int | None:
        """Apply all operations in one transaction if all conditions hold.

        Returns the store's revision, or None when a condition did not hold and nothing was written. At most
        ``MAX_OPERATIONS`` operations. A ``Put`` with a lease that has run out raises ``LeaseLost``.
        """

    async def grant(self, ttl: int) -> int:
        """A new lease of ``ttl`` seconds; its id."""

    async def keep_alive(self, lease: int) -> int:
        """Renew a lease; the seconds it now has, or 0 when it is gone."""

    async def time_left(self, lease: int) -> int:
        """Seconds until the lease runs out, without renewing it; 0 when it is gone."""

    async def revoke(self, lease: int) -> None:
        """End a lease now, its keys with it; no error if it is gone."""

    def watch(self, prefix: str) -> AsyncIterator[WatchEvent]:
        """A ``Snapshot``, then every change, for ever.

        Survives the loss of the server: it reconnects and resumes from its revision; where that was compacted, or the
        store was wiped, another ``Snapshot`` comes. Ends only with ``aclose``.
        """

    async def check(self) -> ServerInfo:
        """Ask one server for its version."""

    async def close(self) -> None:
        """Give back connections. Running watches end."""


MAX_OPERATIONS = 128
"""Operations (and conditions) in one transaction: etcd's default ``--max-txn-ops``."""


class LeaseLost(Exception):
    """The lease named in a ``Put`` is gone: an event for the node to act on, never shown to a user."""
