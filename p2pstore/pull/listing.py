"""Who is listed as holding an object: the replicas' records, watched, as a pull hears of them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from engine.errors import MooncakeError
from p2pstore.cluster import records
from p2pstore.cluster.records import NodeRecord, ReplicaRecord, distance
from p2pstore.cluster.registry import Registry
from p2pstore.metadata.store import Changed, Removed, Snapshot
from p2pstore.pull.holders import MAX_SOURCES, NEAR_SAMPLE, in_order


@dataclass(frozen=True)
class Everybody:
    """All who are listed now, by node name, in the order in which to try them."""

    nodes: Sequence[str]


@dataclass(frozen=True)
class Came:
    """A holder is listed from now on, or was before and says something new."""

    node: str


@dataclass(frozen=True)
class Gone:
    """A holder is listed no more."""

    node: str


class Listing:
    """The holders of one object that a metadata store lists."""

    def __init__(self, registry: Registry, digest: str, me: NodeRecord) -> None:
        """``me`` is who gets; the near are tried first."""
        self.complete: set[str] = set()
        """Those that are listed as having all, by node name."""
        self._registry = registry
        self._prefix = records.replicas_prefix(digest)
        self._me = me

    async def changes(self) -> AsyncGenerator[Everybody | Came | Gone, None]:
        """Everybody first, and again when the watch had to begin anew; then who comes and goes. It never ends."""
        start = len(self._prefix)
        async with aclosing(self._registry.store.watch(self._prefix)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Snapshot):
                    now = {item.key[start:]: records.decode(ReplicaRecord, item.value) for item in event.items}
                    self.complete = {node for node, record in now.items() if _has_all(record)}
                    yield Everybody(await self.in_order(list(now)))
                elif isinstance(event, Changed):
                    node = event.item.key[start:]
                    if _has_all(records.decode(ReplicaRecord, event.item.value)):
                        self.complete.add(node)
                    yield Came(node)
                elif isinstance(event, Removed):
                    self.complete.discard(event.key[start:])
                    yield Gone(event.key[start:])

    async def in_order(self, nodes: Sequence[str]) -> Sequence[str]:
        """Nodes in the order in which to try them; see ``holders.in_order``."""
        shuffled = random.sample(nodes, len(nodes))
        found: dict[str, NodeRecord] = {}
        if len(nodes) > MAX_SOURCES:
            with contextlib.suppress(MooncakeError):  # then the order is by chance alone
                found = await self._registry.nodes(shuffled[:NEAR_SAMPLE])
        distances = {node: distance(self._me, record) for node, record in found.items()}
        return in_order(shuffled, sorted(self.complete.intersection(nodes)), distances)


def _has_all(record: ReplicaRecord | None) -> bool:
    return record is not None and record.state == "complete"
