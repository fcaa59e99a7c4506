"""The metadata store in this process's memory: for tests, and for nodes that share one process.

It follows etcd v3's model to the letter where a caller can tell: one revision a transaction, keys in byte order,
versions that start again after a delete, leases that take their keys along.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from engine import forks
from engine.net.within import within
from p2pstore.errors import MetadataUnavailable
from p2pstore.metadata.rules import check_reads, check_transaction, encode_key
from p2pstore.metadata.store import (
    Absent,
    AbsentPrefix,
    Changed,
    Condition,
    Delete,
    KeyValue,
    LeaseLost,
    Operation,
    Page,
    Put,
    Removed,
    ServerInfo,
    Snapshot,
    Unchanged,
    WatchEvent,
)

VERSION = "memory"
"""What ``check`` reports as the server's version."""

EXPIRY_POLL = 0.25
"""Seconds between a waiting watch's looks at the clock: a bound on how late it learns that a lease ran out."""


@dataclass
class _Lease:
    ttl: int
    expires: float
    keys: set[str] = field(default_factory=set)


@dataclass(eq=False)
class _Watcher:
    prefix: str
    loop: asyncio.AbstractEventLoop
    queue: asyncio.Queue[WatchEvent | None]

    def send(self, event: WatchEvent | None) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.queue.put_nowait, event)


class MemoryServer:
    """The content that several ``MemoryStore`` handles share; safe to use from several threads and event loops."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` returns seconds; a test that drives its own calls ``expire`` after it moved the clock."""
        self._clock = clock
        self._lock = threading.RLock()
        self._items: dict[str, KeyValue] = {}
        self._leases: dict[int, _Lease] = {}
        self._watchers: set[_Watcher] = set()
        self.revision = 1

    def expire(self) -> None:
        """Remove the leases that ran out, with their keys."""
        with self._lock:
            now = self._clock()
            for number in [n for n, lease in self._leases.items() if lease.expires <= now]:
                self._end(number)

    def _end(self, number: int) -> None:
        lease = self._leases.pop(number, None)
        if lease is None or not lease.keys:
            return
        self.revision += 1
        for key in sorted(lease.keys, key=encode_key):
            del self._items[key]
            self._tell(Removed(key, self.revision))

    def _tell(self, event: Changed | Removed) -> None:
        key = event.item.key if isinstance(event, Changed) else event.key
        for watcher in self._watchers:
            if key.startswith(watcher.prefix):
                watcher.send(event)

    def range(self, prefix: str, limit: int, after: str) -> Page:
        """The keys under ``prefix`` that sort after ``after``."""
        with self._lock:
            self.expire()
            start = encode_key(after)
            keys = sorted(
                (k for k in self._items if k.startswith(prefix) and (not after or encode_key(k) > start)),
                key=encode_key,
            )
            chosen = keys[:limit] if limit else keys
            items = tuple(self._items[k] for k in chosen)
            return Page(items, self.revision, more=len(chosen) < len(keys))

    def get(self, key: str) -> KeyValue | None:
        """One key, or None."""
        with self._lock:
            self.expire()
            return self._items.get(key)

    def get_each(self, keys: Sequence[str]) -> list[KeyValue | None]:
        """Several keys, at one revision."""
        with self._lock:
            return [self.get(key) for key in keys]

    def range_each(self, prefixes: Sequence[str], limit: int) -> list[Page]:
        """The first keys of several prefixes, at one revision."""
        with self._lock:
            return [self.range(prefix, limit, "") for prefix in prefixes]

    def _holds(self, condition: Condition) -> bool:
        if isinstance(condition, AbsentPrefix):
            return not any(k.startswith(condition.prefix) for k in self._items)
        item = self._items.get(condition.key)
        if isinstance(condition, Absent):
            return item is None
        if isinstance(condition, Unchanged):
            return (item.mod_revision if item else 0) == condition.mod_revision
        return item is not None and item.value == condition.value

    def commit(self, operations: Sequence[Operation], conditions: Sequence[Condition]) -> int | None:
        """One transaction; see ``MetadataStore.commit``."""
        with self._lock:
            self.expire()
            if any(isinstance(op, Put) and op.lease and op.lease not in self._leases for op in operations):
                raise LeaseLost
            if not all(self._holds(condition) for condition in conditions):
                return None
            writes = [op for op in operations if isinstance(op, Put) or op.key in self._items]
            if writes:
                self.revision += 1
            for op in writes:
                self._apply(op)
            return self.revision

    def _apply(self, op: Operation) -> None:
        old = self._items.pop(op.key, None)
        if old is not None and old.lease:
            self._leases[old.lease].keys.discard(op.key)
        if isinstance(op, Delete):
            if old is not None:
                self._tell(Removed(op.key, self.revision))
            return
        item = KeyValue(
            key=op.key,
            value=op.value,
            create_revision=old.create_revision if old else self.revision,
            mod_revision=self.revision,
            version=old.version + 1 if old else 1,
            lease=op.lease,
        )
        self._items[op.key] = item
        if op.lease:
            self._leases[op.lease].keys.add(op.key)
        self._tell(Changed(item))

    def grant(self, ttl: int) -> int:
        """A new lease; its id."""
        with self._lock:
            number = secrets.randbits(62) + 1
            self._leases[number] = _Lease(ttl, self._clock() + ttl)
            return number

    def renew(self, lease: int) -> int:
        """The seconds that the lease now has, or 0."""
        with self._lock:
            self.expire()
            found = self._leases.get(lease)
            if found is None:
                return 0
            found.expires = self._clock() + found.ttl
            return found.ttl

    def time_left(self, lease: int) -> int:
        """Whole seconds left, at least 1 while it lives, or 0."""
        with self._lock:
            self.expire()
            found = self._leases.get(lease)
            return max(1, int(found.expires - self._clock())) if found else 0

    def revoke(self, lease: int) -> None:
        """End a lease."""
        with self._lock:
            self.expire()
            self._end(lease)

    def subscribe(self, prefix: str) -> _Watcher:
        """A watcher whose queue already holds the snapshot."""
        with self._lock:
            page = self.range(prefix, 0, "")
            watcher = _Watcher(prefix, asyncio.get_running_loop(), asyncio.Queue())
            watcher.queue.put_nowait(Snapshot(page.items, page.revision))
            self._watchers.add(watcher)
            return watcher

    def unsubscribe(self, watcher: _Watcher) -> None:
        """Forget a watcher."""
        with self._lock:
            self._watchers.discard(watcher)


_named: dict[str, MemoryServer] = {}
forks.renew_at_fork(_named.clear)
_numbers = itertools.count(1)


def named_server(name: str) -> MemoryServer:
    """The one server of this process that ``memory://name`` means."""
    return _named.setdefault(name, MemoryServer())


class MemoryStore:
    """One handle on a ``MemoryServer``; implements ``MetadataStore``."""

    def __init__(self, server: MemoryServer | None = None, *, name: str = "") -> None:
        """A handle on ``server``, else on the named one, else on a new one that nobody else sees."""
        self._name = name or f"private-{next(_numbers)}"
        self._server = server or (named_server(name) if name else MemoryServer())
        self._watchers: set[_Watcher] = set()
        self._closed = False

    @property
    def url(self) -> str:
        """``memory://NAME``: it means something in this process only."""
        return f"memory://{self._name}"

    def _open(self) -> MemoryServer:
        if self._closed:
            raise MetadataUnavailable(url=self.url, detail="this handle is closed")
        return self._server

    async def get(self, key: str) -> KeyValue | None:
        """See ``MetadataStore.get``."""
        return self._open().get(key)

    async def scan(self, prefix: str, *, limit: int = 0, after: str = "") -> Page:
        """See ``MetadataStore.scan``."""
        return self._open().range(prefix, limit, after)

    async def get_each(self, keys: Sequence[str]) -> list[KeyValue | None]:
        """See ``MetadataStore.get_each``."""
        check_reads(keys)
        return self._open().get_each(keys)

    async def scan_each(self, prefixes: Sequence[str], *, limit: int) -> list[Page]:
        """See ``MetadataStore.scan_each``."""
        check_reads(prefixes)
        return self._open().range_each(prefixes, limit)

    async def commit(self, operations: Sequence[Operation], conditions: Sequence[Condition] = ()) -> int | None:
        """See ``MetadataStore.commit``."""
        check_transaction(operations, conditions)
        return self._open().commit(operations, conditions)

    async def grant(self, ttl: int) -> int:
        """See ``MetadataStore.grant``."""
        return self._open().grant(ttl)

    async def keep_alive(self, lease: int) -> int:
        """See ``MetadataStore.keep_alive``."""
        return self._open().renew(lease)

    async def time_left(self, lease: int) -> int:
        """See ``MetadataStore.time_left``."""
        return self._open().time_left(lease)

    async def revoke(self, lease: int) -> None:
        """See ``MetadataStore.revoke``."""
        self._open().revoke(lease)

    async def watch(self, prefix: str) -> AsyncIterator[WatchEvent]:
        """See ``MetadataStore.watch``."""
        server = self._open()
        watcher = server.subscribe(prefix)
        self._watchers.add(watcher)
        try:
            while True:
                try:
                    event = await within(watcher.queue.get(), EXPIRY_POLL)
                except asyncio.TimeoutError:
                    server.expire()
                    continue
                if event is None:
                    return
                yield event
        finally:
            self._watchers.discard(watcher)
            server.unsubscribe(watcher)

    async def check(self) -> ServerInfo:
        """See ``MetadataStore.check``."""
        self._open()
        return ServerInfo(endpoint=self.url, version=VERSION, seconds=0.0)

    async def close(self) -> None:
        """See ``MetadataStore.close``."""
        self._closed = True
        for watcher in self._watchers:
            watcher.send(None)
