"""What the admin surface asks of the master that it shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from engine.rpc.codes import Code
from engine.rpc.messages import Replica
from p2pstore.kv.master.facts import CallerFacts, KeyFacts, PoolFacts
from p2pstore.kv.master.forms import KeyShown
from p2pstore.kv.master.metrics import Readings
from p2pstore.kv.pool.drain import JobInfo
from p2pstore.kv.pool.entries import TenantUse
from p2pstore.kv.pool.segments import SegmentInfo
from p2pstore.kv.pool.walks import Steps


class Shown(Protocol):
    """What the server asks of the master. Nothing of it waits."""

    def ready(self) -> bool:
        """Whether calls are served."""

    def status(self) -> dict[str, Any]:
        """Version, addresses, time since the start: what no other method tells."""

    def readings(self) -> Readings:
        """For the metrics."""

    def names(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Each tenant, and its keys."""

    def shown(self, tenant: str, key: str) -> KeyShown | None:
        """One of them, or None when it is gone meanwhile."""

    def replicas(self, key: str, tenant: str) -> Sequence[Replica] | Code:
        """Where a value lies, without a lease."""

    def segments(self) -> Sequence[SegmentInfo]:
        """All of them."""

    def remove(self, key: str, tenant: str, *, force: bool) -> Code:
        """Remove one key."""

    def remove_all(self, tenant: str, *, force: bool) -> Steps[int]:
        """Remove a tenant's keys, or everybody's where it is empty; how many."""

    def tenant_uses(self) -> Iterator[TenantUse] | None:
        """What each tenant takes of the memory; None where tenants are one."""

    def tenant_use(self, tenant: str) -> TenantUse | None:
        """What one takes, and may take, if anything."""

    def capacity(self) -> int:
        """Bytes of all memory in the pool."""

    def set_quota(self, tenant: str, size: int) -> Code:
        """Bound what a tenant takes of the memory; 0 ends that."""

    def drain(self, segments: Sequence[str], targets: Sequence[str], concurrency: int) -> bytes | Code:
        """Have segments emptied; the job's id."""

    def drain_job(self, job: bytes) -> JobInfo | Code:
        """How far a job is."""

    def cancel_drain(self, job: bytes) -> Code:
        """End a job."""

    def key_facts(self, key: str, tenant: str) -> KeyFacts:
        """What is known of a key."""

    def caller_facts(self) -> Sequence[CallerFacts]:
        """What is known of those who called."""

    def pool_facts(self) -> PoolFacts:
        """What is known of the pool."""
