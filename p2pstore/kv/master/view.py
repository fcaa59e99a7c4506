"""A running master as the admin surface shows it: from its pool, and from what it noted of its callers."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from engine._version import __version__
from engine.rpc.codes import Code
from engine.rpc.messages import LocalDisk, Memory, Nof, Replica, Status
from p2pstore.kv.master.callers import Caller
from p2pstore.kv.master.facts import CallerFacts, EventFact, KeyFacts, PoolFacts, ReplicaFact, SegmentFact
from p2pstore.kv.master.forms import KeyShown, id_text
from p2pstore.kv.master.metrics import Readings, Segment
from p2pstore.kv.master.server import Master
from p2pstore.kv.pool.drain import JobInfo
from p2pstore.kv.pool.entries import TenantUse
from p2pstore.kv.pool.pool import Pool
from p2pstore.kv.pool.segments import Drain, SegmentInfo
from p2pstore.kv.pool.walks import Steps

SAMPLE = 20_000
"""Keys among which one is looked for that is nearly the one that somebody asked about."""

DRAINED = frozenset({Drain.DRAINING.value, Drain.DRAINED.value})
"""What the pool says of a segment that is being emptied, or was."""


class View:
    """``Shown`` of a master."""

    def __init__(self, master: Master, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` is the pool's."""
        self._master = master
        self._pool: Pool = master.pool
        self._clock = clock

    def ready(self) -> bool:
        """Whether calls are served."""
        return bool(self._master.address)

    def status(self) -> dict[str, Any]:
        """Version, address, and how long it has been up."""
        up = self._clock() - self._master.started if self.ready() else 0.0
        return {"version": __version__, "address": self._master.address, "up": round(up, 3)}

    def readings(self) -> Readings:
        """For the metrics."""
        stats = self._pool.stats
        numbers = {name: value for name, value in vars(stats).items() if isinstance(value, int)}
        for name in ("attempted_evictions", "successful_evictions", "evicted_key_count", "evicted_size_bytes"):
            numbers[f"{name}_mem"] = numbers.get(name, 0)  # nothing else is evicted
        numbers.setdefault("mem_cache_nums", numbers.get("key_count", 0))
        connected = Counter(each.generation or "unknown" for each in self._callers() if each.connected)
        unknown: Counter[str] = Counter()
        for caller in self._callers():
            unknown.update(caller.unknown)
        return Readings(
            numbers=numbers,
            calls=self._master.counts,
            segments=[Segment(each.name, each.used, each.size) for each in self._pool.segments()],
            value_sizes=stats.value_sizes,
            value_bytes=stats.value_bytes,
            callers=connected,
            unknown=unknown,
        )

    def names(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Each tenant, and its keys."""
        for tenant in self._pool.tenants():
            yield tenant, self._pool.names(tenant)

    def shown(self, tenant: str, key: str) -> KeyShown | None:
        """One of them; None when it is gone, or being written."""
        found = self.replicas(key, tenant)
        if isinstance(found, Code):
            return None
        whole = [replica for replica in found if replica.status == Status.COMPLETE]
        return KeyShown(key, tenant, max((replica.place.size for replica in found), default=0), len(found), bool(whole))

    def replicas(self, key: str, tenant: str) -> Sequence[Replica] | Code:
        """Where a value lies, without a lease."""
        if not key:
            return Code.BAD_PARAMS
        found = self._pool.peek(key, tenant)
        return found if isinstance(found, Code) else found.replicas

    def segments(self) -> Sequence[SegmentInfo]:
        """All of them."""
        return self._pool.segments()

    def remove(self, key: str, tenant: str, *, force: bool) -> Code:
        """Remove one key; done once it is kept that it is gone."""
        code = self._pool.remove([key], force, tenant)[0]
        return code if self._master.keep_log() else Code.PERSIST_FAILED

    def remove_all(self, tenant: str, *, force: bool) -> Steps[int]:
        """Remove a tenant's keys, or everybody's; how many."""
        return self._master.kept_steps(self._pool.remove_all(force, tenant or None))

    def tenant_uses(self) -> Iterator[TenantUse] | None:
        """What each tenant takes of the memory; None where tenants are one."""
        return self._pool.tenant_uses() if self._pool.settings.tenants else None

    def tenant_use(self, tenant: str) -> TenantUse | None:
        """What one takes, and may take, if anything."""
        return self._pool.tenant_use(tenant)

    def capacity(self) -> int:
        """Bytes of all memory in the pool."""
        return self._pool.stats.total_capacity_bytes

    def set_quota(self, tenant: str, size: int) -> Code:
        """Bound what a tenant takes of the memory; done once it is kept."""
        code = self._pool.set_quota(tenant, size)
        return code if self._master.keep_log() else Code.PERSIST_FAILED

    def drain(self, segments: Sequence[str], targets: Sequence[str], concurrency: int) -> bytes | Code:
        """Have segments emptied; the job's id."""
        return self._pool.drain(segments, targets, concurrency)

    def drain_job(self, job: bytes) -> JobInfo | Code:
        """How far a job is."""
        return self._pool.drain_job(job)

    def cancel_drain(self, job: bytes) -> Code:
        """End a job."""
        return self._pool.cancel_drain(job)

    def key_facts(self, key: str, tenant: str) -> KeyFacts:
        """What is known of a key."""
        pool = self._pool
        found = pool.peek(key, tenant)
        told = pool.story.of(key, tenant)
        event = None
        if told is not None:
            ago = self._clock() - told.at
            event = EventFact(told.what, max(ago, 0.0), self._address(told.client), told.detail)
        if isinstance(found, Code):
            being = [ReplicaFact("", "memory", 0, whole=False, silent=0.0)] if found is Code.NOT_READY else []
            owners = pool.tenants_of(key)
            aside = found is Code.NOT_FOUND and tenant in owners
            others = [name for name in owners if name != tenant]
            near = list(itertools.islice(pool.names(tenant), SAMPLE))
            return KeyFacts(key, tenant, being, event=event, aside=aside, others=others, known=near)
        by_endpoint = {segment.endpoint: segment for segment in pool.segments()}
        replicas = [_replica(replica, by_endpoint) for replica in found.replicas]
        busy = pool.busy(key, tenant)
        return KeyFacts(key, tenant, replicas, leased_for=found.lease_ms / 1000, busy=busy, event=event)

    def caller_facts(self) -> Sequence[CallerFacts]:
        """What is known of those who called, the last first."""
        now = self._clock()
        heard = {connection.caller: connection.speaker.active for connection in self._master.connections}
        callers = [(heard.get(each, each.last), each) for each in self._callers()]
        return [
            CallerFacts(
                address=each.address,
                version=each.generation,
                connected=int(each.connected),
                last_ago=max(now - last, 0.0),
                calls=each.calls,
                failures={int(code): count for code, count in each.failures.items()},
                unknown=dict(each.unknown),
                malformed=each.malformed,
                turned_away=dict(each.turned_away),
                lookups=each.lookups,
                found=each.found,
                tenants=sorted(each.tenants),
            )
            for last, each in sorted(callers, key=lambda pair: -pair[0])
        ]

    def pool_facts(self) -> PoolFacts:
        """What is known of the pool."""
        pool, stats = self._pool, self._pool.stats
        return PoolFacts(
            listens=self._master.address,
            up=self._clock() - self._master.started,
            segments=[_segment(each) for each in pool.segments()],
            keys=stats.key_count,
            puts=sum(stats.value_sizes),
            refused=stats.put_start_alloc_failures,
            evicted=stats.evicted_key_count,
            client_ttl=pool.settings.client_ttl,
            not_kept=self._master.journal.refusing if self._master.journal is not None else "",
            tenants=pool.tenants(),
        )

    def _callers(self) -> list[Caller]:
        return list(self._master.callers.known.values())

    def _address(self, client: bytes) -> str:
        return next((each.address for each in self._callers() if client in each.clients), "")


def _segment(it: SegmentInfo) -> SegmentFact:
    return SegmentFact(
        it.name, it.endpoint, id_text(it.client), it.size, it.used, it.silent, _suspected(it), it.status in DRAINED
    )


def _suspected(segment: SegmentInfo) -> bool:
    return segment.status == "SUSPECT"


def _replica(replica: Replica, segments: Mapping[str, SegmentInfo]) -> ReplicaFact:
    place = replica.place
    where = "memory" if isinstance(place, (Memory, Nof)) else "disk"
    endpoint = place.endpoint if isinstance(place, (Memory, Nof, LocalDisk)) else ""
    whole = replica.status == Status.COMPLETE
    segment = segments.get(endpoint)
    if segment is None:
        return ReplicaFact(endpoint, where, place.size, whole, 0.0)
    return ReplicaFact(endpoint, where, place.size, whole, segment.silent, _suspected(segment))
