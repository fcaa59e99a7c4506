"""What nodes tell one another through the metadata store: publish, announce, withdraw, and list what there is.

Every write is one transaction; conflicts are found by compare-and-swap on ``mod_revision``, never by locks. A register
costs two keys in one transaction (the object, the replica), a get two writes (partial, then complete).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from p2pstore.cluster import records
from p2pstore.cluster.lookup import COUNTED_AT_ONCE, Listed, Lookup
from p2pstore.cluster.records import GoneRecord, NodeRecord, ObjectRecord, ReplicaRecord
from p2pstore.cluster.versions import KEPT_VERSIONS, forget_versions, remember_version, superseded, superseding
from p2pstore.errors import (
    MetadataFull,
    MetadataRefused,
    MetadataUnavailable,
    ObjectExists,
)
from p2pstore.metadata.store import (
    MAX_OPERATIONS,
    Absent,
    AbsentPrefix,
    Condition,
    Delete,
    LeaseLost,
    MetadataStore,
    Operation,
    Put,
    Unchanged,
)
from p2pstore.objects.manifest import Manifest

CAS_ATTEMPTS = 16
"""How often a compare-and-swap that lost is tried again; each time somebody else has won."""

PUBLISHED_AT_ONCE = MAX_OPERATIONS // 2
"""Objects in one transaction: each is two keys."""

GONE_SECONDS = 24 * 3600
"""How long is remembered of a name that its holders all died: who asks for it is told so, not that there is none."""

GONE_LEASE_SECONDS = 3600
"""Names that are noticed within this share a lease."""


class Registry(Lookup):
    """The domain's operations on a metadata store, for one node and its lease.

    ``lease`` is the id of the node's lease, set by whoever keeps it alive; leased records of this node hang on it.
    While it is 0, or no longer lives, methods that write such records raise ``LeaseLost``.
    """

    def __init__(self, store: MetadataStore, node: str) -> None:
        super().__init__(store)
        self.node = node
        self.lease = 0
        self._gone_lease = 0, 0.0  # and when it was granted

    async def join(self, record: NodeRecord) -> None:
        """Make this node known."""
        await self.store.commit([Put(records.node_key(self.node), records.encode(record), self.lease)])

    async def publish(self, record: ObjectRecord, *, force: bool = False) -> ObjectRecord:
        """Create the object's record and this node's gold replica in one transaction.

        A record of the same content is kept as it is, one whose holders all died is replaced, other content only with
        ``force``. What is replaced goes on as an earlier version. Returns the record that now stands. Raises
        ``ObjectExists``.
        """
        key = records.object_key(record.name)
        replica = self._replica(record.manifest, ReplicaRecord(self.node, "complete", "gold"))
        for attempt in range(CAS_ATTEMPTS):
            held = await self.store.get(key)
            known = records.decode(ObjectRecord, held.value) if held else None
            if known and known.manifest == record.manifest:
                stands, operations = known, [replica]
            else:
                stands = replace(record, supersedes=known.manifest) if known else record
                operations = [replica, Put(key, records.encode(stands)), *(superseding(known, stands) if known else ())]
            conditions: list[Condition] = [Unchanged(key, held.mod_revision) if held else Absent(key)]
            if known and stands is not known and not force:
                if not await self.dead(known):
                    raise ObjectExists(name=record.name)
                # A holder may come back before this is committed.
                conditions.append(AbsentPrefix(records.replicas_prefix(known.manifest)))
            if await self.store.commit(operations, conditions) is not None:
                if known and stands is not known:
                    await forget_versions(self, record.name, keep=KEPT_VERSIONS)
                return stands
            await asyncio.sleep(0.01 * attempt)
        raise self._lost(key)

    async def publish_all(
        self, objects: Sequence[ObjectRecord], *, force: bool = False
    ) -> list[ObjectRecord | ObjectExists]:
        """As ``publish``, for many names at once: two calls for ``PUBLISHED_AT_ONCE`` of them, one of which writes.

        What a batch finds in its way, or loses to another node, is published alone. Returns for each, in order, the
        record that now stands, or why it was refused. No name may come twice.
        """
        done: list[ObjectRecord | ObjectExists] = []
        for first in range(0, len(objects), PUBLISHED_AT_ONCE):
            done += await self._publish_batch(objects[first : first + PUBLISHED_AT_ONCE], force=force)
        return done

    async def _publish_batch(self, batch: Sequence[ObjectRecord], *, force: bool) -> list[ObjectRecord | ObjectExists]:
        held = await self.store.get_each([records.object_key(o.name) for o in batch])
        gold = ReplicaRecord(self.node, "complete", "gold")
        stand: dict[str, ObjectRecord] = {}
        operations: dict[str, Operation] = {}  # two names of one content share a replica
        conditions: list[Condition] = []
        for wanted, there in zip(batch, held, strict=True):
            key = records.object_key(wanted.name)
            known = records.decode(ObjectRecord, there.value) if there else None
            if there is None:
                operations[key] = Put(key, records.encode(wanted))
                conditions.append(Absent(key))
            elif known is not None and known.manifest == wanted.manifest:
                conditions.append(Unchanged(key, there.mod_revision))
            else:
                continue
            stand[wanted.name] = known or wanted
            replica = self._replica(wanted.manifest, gold)
            operations[replica.key] = replica
        if operations and await self.store.commit(list(operations.values()), conditions) is None:
            stand.clear()
        done: list[ObjectRecord | ObjectExists] = []
        for wanted in batch:
            try:
                done.append(stand.get(wanted.name) or await self.publish(wanted, force=force))
            except ObjectExists as error:
                done.append(error)
        return done

    async def republish(self, objects: Sequence[tuple[ObjectRecord, ReplicaRecord]]) -> list[str]:
        """Say again what this node holds, after its lease or the whole store was lost.

        Returns the names that meanwhile stand for other content. Few large transactions, whatever the number.
        """
        replicas = list({o.manifest: self._replica(o.manifest, r) for o, r in objects}.values())
        for first in range(0, len(replicas), MAX_OPERATIONS):
            await self.store.commit(replicas[first : first + MAX_OPERATIONS])
        named = {o.name: o for o, _ in sorted(objects, key=lambda pair: pair[0].created)}  # the latest of each name
        taken: list[str] = []
        for first in range(0, len(named), MAX_OPERATIONS):
            batch = list(named.values())[first : first + MAX_OPERATIONS]
            taken += await self.name_again(batch)
        earlier = [o for o, _ in objects if o.manifest != named[o.name].manifest or o.name in taken]
        for record in earlier:
            await remember_version(self, record)
        return taken

    async def name_again(self, batch: Sequence[ObjectRecord]) -> list[str]:
        """Create the names, ``MAX_OPERATIONS`` at most, that are not there; those that stand for other content."""
        for attempt in range(CAS_ATTEMPTS):
            held = await self.store.get_each([records.object_key(o.name) for o in batch])
            missing = [o for o, there in zip(batch, held, strict=True) if there is None]
            puts = [Put(records.object_key(o.name), records.encode(o)) for o in missing]
            if not puts or await self.store.commit(puts, [Absent(p.key) for p in puts]) is not None:
                break
            await asyncio.sleep(0.01 * attempt)
        else:
            raise self._lost(puts[0].key)
        taken = []
        for record, there in zip(batch, held, strict=True):
            now = records.decode(ObjectRecord, there.value) if there else None
            if now is not None and now.manifest != record.manifest:
                taken.append(record.name)
        return taken

    async def announce(self, manifest: str, replica: ReplicaRecord) -> None:
        """Say that this node has part or all of an object."""
        await self.store.commit([self._replica(manifest, replica)])

    async def withdraw(self, manifest: str, names: Sequence[str], *, died: bool = False) -> list[str]:
        """Take this node's replica back; remove the names that nobody else holds. Returns the names removed.

        ``died``: whoever had all of it is not known to have withdrawn it. It has where its node is alive, and has not
        died.
        """
        await self.store.commit([Delete(records.replica_key(manifest, self.node))])
        removed = []
        for name in names:
            record = await self.find(name)
            if record is None:
                await forget_versions(self, name)
            if record is None or record.manifest != manifest:
                continue
            may_return = died and not await self.nodes([record.creator])
            if await self.reap(record, died=may_return):
                removed.append(name)
        return removed

    async def drop_name(self, record: ObjectRecord) -> bool:
        """Remove a name while this node still holds its content under another; True if it was removed."""
        key = records.object_key(record.name)
        held = await self.store.get(key)
        known = records.decode(ObjectRecord, held.value) if held else None
        if held is None or known is None or known.manifest != record.manifest:
            return False  # the name stands for something else by now
        if not await self._only_mine(record.manifest):
            return False
        operations = [Delete(key), Delete(records.gone_key(record.name))]
        return await self.store.commit(operations, [Unchanged(key, held.mod_revision)]) is not None

    async def listing(self, prefix: str, *, limit: int, after: str) -> tuple[list[Listed], str]:
        """The objects whose names begin with ``prefix``, and the name to go on after (empty at the end).

        Objects whose holders all died are removed from the store, not listed.
        """
        start = records.object_key(after) if after else ""
        page = await self.store.scan(records.object_key(prefix), limit=limit, after=start)
        found = [record for item in page.items if (record := records.decode(ObjectRecord, item.value))]
        listed: list[Listed] = []
        for first in range(0, len(found), COUNTED_AT_ONCE):
            listed += await self.counted(found[first : first + COUNTED_AT_ONCE])
        for entry in listed:
            if not entry.complete + entry.partial:
                with contextlib.suppress(MetadataFull, MetadataRefused):  # whoever may, and lists next, does it
                    await self.reap(entry.record)
        for number, entry in enumerate(listed):
            if entry.record.supersedes:
                listed[number] = replace(entry, superseded=await superseded(self, entry.record))
        last = page.items[-1].key[len(records.OBJECTS) :] if page.more else ""
        return [e for e in listed if e.complete + e.partial], last

    async def reap(self, record: ObjectRecord, *, died: bool = True) -> bool:
        """Remove the record of an object that nobody holds, unless somebody came back meanwhile; True if removed.

        ``died``: its holders did not withdraw it. That is remembered for ``GONE_SECONDS``, unless the node that
        registered it is alive: that has withdrawn it, or is about to say again that it has it.
        """
        key, gone = records.object_key(record.name), records.gone_key(record.name)
        held = await self.store.get(key)
        if held is None or records.decode(ObjectRecord, held.value) != record:
            return False
        guards: list[Condition] = [
            Unchanged(key, held.mod_revision),
            AbsentPrefix(records.replicas_prefix(record.manifest)),
        ]
        if not died:
            removed = await self.store.commit([Delete(key), Delete(gone)], guards) is not None
            if removed:
                await forget_versions(self, record.name)
            return removed
        if await self.nodes([record.creator]):
            return await self.store.commit([Delete(key)], guards) is not None
        told = GoneRecord(record.name, record.manifest, record.creator, time.time())
        try:
            remember: Operation = Put(gone, records.encode(told), await self._lease_of_gone())
            return await self.store.commit([Delete(key), remember], guards) is not None
        except LeaseLost:  # the store was wiped meanwhile
            self._gone_lease = 0, 0.0
            return False
        except MetadataFull:  # it has room for nothing new, and a removal makes some
            return await self.store.commit([Delete(key)], guards) is not None

    async def _lease_of_gone(self) -> int:
        """A lease that nobody renews: what hangs on it goes when it has run out."""
        lease, granted = self._gone_lease
        now = time.monotonic()
        if not lease or now - granted > GONE_LEASE_SECONDS:
            lease = await self.store.grant(GONE_SECONDS)
            self._gone_lease = lease, now
        return lease

    async def _only_mine(self, manifest: str) -> bool:
        return set(await self.replicas(manifest)) <= {self.node}

    def _replica(self, manifest: str, replica: ReplicaRecord) -> Put:
        if not self.lease:
            raise LeaseLost  # without a lease the record would stay for ever
        return Put(records.replica_key(manifest, self.node), records.encode(replica), self.lease)

    def _lost(self, key: str) -> MetadataUnavailable:
        return MetadataUnavailable(url=self.store.url, detail=f"{CAS_ATTEMPTS} others were faster at {key}")


def new_object(name: str, creator: str, manifest: Manifest) -> ObjectRecord:
    """The record of an object that is created now."""
    return ObjectRecord(
        name=name,
        manifest=manifest.digest,
        size=manifest.size,
        chunk_size=manifest.chunk_size,
        chunks=manifest.chunks,
        files=len(manifest.files),
        kind=manifest.kind,
        hash=manifest.hash,
        creator=creator,
        created=time.time(),
    )


def registered(record: ObjectRecord, manifest: Manifest) -> dict[str, Any]:
    """What a register answers of an object."""
    return {
        "name": record.name,
        "manifest": manifest.digest,
        "size": manifest.size,
        "chunk_size": manifest.chunk_size,
        "chunks": manifest.chunks,
        "files": len(manifest.files),
    }
