"""What a master may have seen: facts for the tests of what it says of them."""

from __future__ import annotations

from dataclasses import replace

from p2pstore.kv.master.facts import CallerFacts, EventFact, KeyFacts, PoolFacts, ReplicaFact, SegmentFact
from p2pstore.kv.master.findings import Finding

MIB = 1 << 20
SEGMENT = SegmentFact("10.0.0.2:12001", "10.0.0.2:12001", "", 64 * MIB, 8 * MIB, 0.4)
POOL = PoolFacts("10.0.0.1:50051", 3600.0, (SEGMENT,), keys=10, puts=10, tenants=("default",))
KEY = KeyFacts("llama@tp_rank:0@" + "ab" * 16, "default")
REPLICA = ReplicaFact("10.0.0.2:12001", "memory", 4096, True, 0.4)
CALLER = CallerFacts("10.0.0.3:40000", "0.3.13", calls=100, lookups=50, found=40, tenants=("default",))


def causes(found: list[Finding]) -> list[str]:
    """Their words."""
    return [finding.cause for finding in found]


def event(what: str, detail: str = "", who: str = "10.0.0.3:40000") -> KeyFacts:
    """A key that this befell."""
    return replace(KEY, event=EventFact(what, 90.0, who, detail))
