"""What the metadata store knows: objects by name, who holds them, the nodes that live. Nothing here writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from p2pstore.cluster import records
from p2pstore.cluster.records import GoneRecord, NodeRecord, ObjectRecord, ReplicaRecord
from p2pstore.errors import HolderGone, NodeNotFound, ObjectNotFound
from p2pstore.metadata.store import MAX_OPERATIONS, KeyValue, MetadataStore
from p2pstore.objects.names import nodes_meant

MAX_NAMESAKES = 256
"""Nodes whose names begin alike, among which the one that is meant is looked for."""

SHOWN_NAMESAKES = 8
"""Of those that may be meant, so many are named."""

COUNTED_AT_ONCE = 64
COUNTED_REPLICAS = 64
"""Objects whose replicas one call counts, and replicas of each in its answer: about half a megabyte at most. An object
that has more takes a call of its own."""


@dataclass(frozen=True)
class Listed:
    """One object of a listing, with how many nodes hold all of it and how many a part.

    ``superseded`` is how many of its earlier versions somebody holds.
    """

    record: ObjectRecord
    complete: int
    partial: int
    superseded: int = 0


class Lookup:
    """Questions to a metadata store. They need no lease."""

    def __init__(self, store: MetadataStore) -> None:
        self.store = store

    async def missing(self, name: str) -> ObjectNotFound | HolderGone:
        """Why there is no record of that name: there is no such object, or its holders died lately."""
        held = await self.store.get(records.gone_key(name))
        gone = records.decode(GoneRecord, held.value) if held else None
        if gone is None:
            return ObjectNotFound(name=name)
        noticed = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(gone.noticed))
        return HolderGone(name=name, creator=gone.creator, noticed=noticed)

    async def find(self, name: str) -> ObjectRecord | None:
        """The record of that name."""
        held = await self.store.get(records.object_key(name))
        return records.decode(ObjectRecord, held.value) if held else None

    async def find_all(self, names: Sequence[str]) -> dict[str, ObjectRecord]:
        """The records of those of the names that are there: a call for ``MAX_OPERATIONS`` of them."""
        found: dict[str, ObjectRecord] = {}
        for first in range(0, len(names), MAX_OPERATIONS):
            batch = names[first : first + MAX_OPERATIONS]
            held = await self.store.get_each([records.object_key(name) for name in batch])
            for name, there in zip(batch, held, strict=True):
                record = records.decode(ObjectRecord, there.value) if there else None
                if record is not None:
                    found[name] = record
        return found

    async def replicas(self, manifest: str) -> dict[str, ReplicaRecord]:
        """Who holds an object, by node."""
        prefix = records.replicas_prefix(manifest)
        page = await self.store.scan(prefix)
        return parse_replicas(prefix, page.items)

    async def nodes(self, names: Sequence[str]) -> dict[str, NodeRecord]:
        """The records of those of the named nodes that are alive."""
        found = await asyncio.gather(*(self.store.get(records.node_key(n)) for n in names))
        decoded = ((n, records.decode(NodeRecord, kv.value)) for n, kv in zip(names, found, strict=True) if kv)
        return {name: record for name, record in decoded if record}

    async def called(self, asked: str) -> NodeRecord:
        """The living node that is called so, by its name, its host's name or its name's beginning.

        Raises ``NodeNotFound``, which names those that may be meant.
        """
        exact = (await self.nodes([asked])).get(asked)
        if exact is not None:
            return exact
        begins = asked.partition(".")[0]
        page = await self.store.scan(records.node_key(begins), limit=MAX_NAMESAKES)
        found = nodes_meant(asked, [item.key[len(records.NODES) :] for item in page.items])
        record = (await self.nodes(found)).get(found[0]) if len(found) == 1 else None
        if record is None:
            shown = ", ".join(found[:SHOWN_NAMESAKES])
            raise NodeNotFound(node=asked, detail=f"; it may be one of {shown}" if len(found) > 1 else "")
        return record

    async def control_of(self, peer: str) -> str:
        """The control address of a peer that was named by it, or as ``called`` has it. Raises ``NodeNotFound``."""
        return peer if ":" in peer else (await self.called(peer)).control

    async def counted(self, found: Sequence[ObjectRecord]) -> list[Listed]:
        """How many hold each of at most ``COUNTED_AT_ONCE`` objects."""
        listed = []
        for record, replicas in zip(found, await self.holders(found), strict=True):
            states = [replica.state for replica in replicas.values()]
            listed.append(Listed(record, states.count("complete"), states.count("partial")))
        return listed

    async def holders(self, found: Sequence[ObjectRecord]) -> list[dict[str, ReplicaRecord]]:
        """Who holds each of at most ``COUNTED_AT_ONCE`` objects, by node."""
        prefixes = [records.replicas_prefix(record.manifest) for record in found]
        pages = await self.store.scan_each(prefixes, limit=COUNTED_REPLICAS)
        return [
            await self.replicas(record.manifest) if page.more else parse_replicas(prefix, page.items)
            for record, prefix, page in zip(found, prefixes, pages, strict=True)
        ]

    async def dead(self, record: ObjectRecord) -> bool:
        """Whether nobody holds the object."""
        return not (await self.store.scan(records.replicas_prefix(record.manifest), limit=1)).items


def parse_replicas(prefix: str, items: Sequence[KeyValue]) -> dict[str, ReplicaRecord]:
    """The replica records below ``prefix``, by node."""
    found = {}
    for item in items:
        record = records.decode(ReplicaRecord, item.value)
        if record is not None:
            node = item.key[len(prefix) :]
            found[node] = replace(record, node=node)
    return found
