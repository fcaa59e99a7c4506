"""Claims: what is to be done once in the cluster, such as reading an origin, one node claims, and the others wait.

A claim hangs on the node's lease: when the node dies, another may claim. It is no lock that data depend on: who could
not claim since nobody answers does the work all the same, and it is done twice.
"""

from __future__ import annotations

from p2pstore.cluster import records
from p2pstore.cluster.registry import Registry
from p2pstore.metadata.store import Absent, Delete, HasValue, Put


async def claim(registry: Registry, what: str) -> bool:
    """Whether this node is to do it. Raises ``LeaseLost``, ``MetadataUnavailable`` or ``MetadataRefused``."""
    key, me = records.claim_key(what), registry.node.encode()
    if await registry.store.commit([Put(key, me, registry.lease)], [Absent(key)]) is not None:
        return True
    held = await registry.store.get(key)
    return held is not None and held.value == me  # of before a restart, or a call that was answered too late


async def claimant(registry: Registry, what: str) -> str:
    """The node that does it; empty where none does."""
    held = await registry.store.get(records.claim_key(what))
    return held.value.decode(errors="replace") if held is not None else ""


async def give_back(registry: Registry, what: str) -> None:
    """It is done, or given up. Raises as ``claim``."""
    key = records.claim_key(what)
    await registry.store.commit([Delete(key)], [HasValue(key, registry.node.encode())])
