"""The publisher: keeps what the cluster is told of this node, and what this node holds, in step.

What is held is the truth. What was said and is not held, because something failed or was cancelled in between, is taken
back (``settling``). What has begun is brought to an end, also when whoever asked for it is cancelled: nothing is left
half done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from engine.memory.file_spans import FileSpan
from p2pstore.cluster.membership import Membership
from p2pstore.cluster.records import ObjectRecord, ReplicaRecord
from p2pstore.cluster.registry import Registry, new_object
from p2pstore.cluster.tags import tagged
from p2pstore.errors import MooncakeError, ObjectExists
from p2pstore.holding.catalog import Holding
from p2pstore.holding.copy_note import CopyNote, seal
from p2pstore.holding.holdings import Holdings, PartialCopy
from p2pstore.holding.replica import Replica
from p2pstore.holding.settling import Owed, Settling, keys_of
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import Lent
from p2pstore.objects.waiting import to_its_end
from p2pstore.supervisor import Policy, Supervisor

log = logging.getLogger(__name__)

T = TypeVar("T")

FAREWELLS_AT_ONCE = 32
"""Contents that are taken back at the same time when a node ends."""


@dataclass(frozen=True)
class NewObject:
    """What a register made, and nobody knows yet: files at ``root`` with their stamps, or views of memory."""

    name: str
    manifest: Manifest
    root: Path | None
    spans: Sequence[FileSpan] = ()
    views: tuple[Lent, ...] = ()
    kept: bool = False
    """Whether this agent wrote the file, in a directory of its own."""

    def holding(self, record: ObjectRecord) -> Holding:
        """How it is held, under the record that stands for its name."""
        note = CopyNote(wrote=seal(self.spans), real=str(self.root)) if self.kept else CopyNote()
        return Holding(record, "gold", self.root, self.spans, self.views, note)


class Publisher:
    """Says what this node holds. Its methods hold, too: so that the one is never done without the other."""

    def __init__(self, registry: Registry, holdings: Holdings, membership: Membership, supervisor: Supervisor) -> None:
        self._registry = registry
        self._holdings = holdings
        self._membership = membership
        self._supervisor = supervisor
        self._name = registry.node
        self._settling = Settling(registry, holdings, membership, supervisor)
        self._turns = self._settling.turns

    @property
    def pending(self) -> str:
        """Why the metadata server has not been told yet what is not so any more; empty where it has."""
        return self._settling.fault

    # What is registered

    async def publish(
        self, new: Sequence[NewObject], *, force: bool, retagged: Collection[str] = ()
    ) -> list[ObjectRecord | ObjectExists]:
        """Give each its name in the metadata store, with this node as a gold replica, and hold it.

        What lay at its place is given up, and other content under its name, unless a tag leads to that other than those
        that are ``retagged``: about to lead to the new. Returns for each, in order, the record that now stands, or why
        it was refused; no name may come twice. When this raises, none of them is held; when it is cancelled, files may
        be, and memory is not. Raises ``MetadataUnavailable``, ``MetadataRefused`` or ``StorageError``.
        """
        given_up = asyncio.Event()
        held: list[Holding] = []
        try:
            return await to_its_end(self._publish(new, held, given_up, force=force, retagged=retagged), given_up.set)
        except asyncio.CancelledError:
            await self.withdraw([holding for holding in held if holding.root is None])
            raise

    async def _publish(
        self,
        new: Sequence[NewObject],
        held: list[Holding],
        given_up: asyncio.Event,
        *,
        force: bool,
        retagged: Collection[str],
    ) -> list[ObjectRecord | ObjectExists]:
        wanted = [new_object(each.name, self._name, each.manifest) for each in new]
        async with self._turns.of(keys_of(wanted)):
            before = await self._registry.find_all([w.name for w in wanted]) if force else {}
            kept = {w.name: await tagged(self._registry, w.name, retagged) for w in wanted if self._has_others(w)}
            lease = self._registry.lease
            try:
                _still_wanted(given_up)
                with self._holdings.expected.during(each.manifest.digest for each in new):
                    records = await self._membership.leased(lambda: self._registry.publish_all(wanted, force=force))
                    _still_wanted(given_up)
                    published = [
                        (each.holding(record), each.manifest)
                        for each, record in zip(new, records, strict=True)
                        if isinstance(record, ObjectRecord)
                    ]
                    gone = await self._holdings.put(published, whole_name=True, but=kept)
            except BaseException:
                await self._take_back_published(wanted, before)
                raise
            held += [holding for holding, _ in published]
            if self._registry.lease != lease:  # whoever took the new lease did not know of these holdings yet
                for holding in held:
                    await self._announce(holding.digest)
        await self._take_back(gone)
        return records

    async def _take_back_published(self, wanted: Sequence[ObjectRecord], before: Mapping[str, ObjectRecord]) -> None:
        """Take back what a publication that came to nothing may have said. The caller has the turn."""
        for record in wanted:
            await self._settling.settle_or_owe(Owed(record.manifest, record, before.get(record.name)))

    # What a get brings

    async def serve_partial(self, copy: PartialCopy, record: ObjectRecord | None = None) -> Replica:
        """Serve what a get has verified so far, and say so, until ``hold`` or ``drop_partial``.

        ``record`` is what stands for its name, which goes when nobody else has any of it in the end.

        Nothing is served twice: where this node serves the object already, the replica has no address.
        """
        made: list[Replica] = []
        try:
            await to_its_end(self._serve_partial(copy, made))
        except BaseException:
            for replica in made:
                self.drop_partial(replica, record)
            raise
        return made[0]

    async def _serve_partial(self, copy: PartialCopy, made: list[Replica]) -> None:
        digest = copy.manifest.digest
        async with self._turns.of([digest]):
            replica = await self._holdings.serve_partial(copy)
            made.append(replica)
            if self._holdings.replicas.get(digest) is replica and not replica.have.full:
                await self._announce(digest)

    def drop_partial(self, replica: Replica, record: ObjectRecord | None = None) -> None:
        """A get ended before it was whole: serve that no more, and say so in the background; ``record`` as above."""
        digest = replica.manifest.digest

        async def end() -> None:
            await self._holdings.catch_up()
            async with self._turns.of(keys_of([record]) if record is not None else [digest]):
                await self._settling.settle_or_owe(Owed(digest, record, died=True))

        if self._holdings.drop_partial(replica):
            self._supervisor.start("withdrawal of what was got in part", "get", end, Policy.ONCE)

    async def withdraw_partial(self, replica: Replica, record: ObjectRecord) -> bool | None:
        """Serve no more what this node has of an object in part. As ``withdraw`` otherwise."""

        async def work() -> bool | None:
            if not self._holdings.drop_partial(replica):
                return False
            await self._holdings.catch_up()
            async with self._turns.of(keys_of([record])):
                return await self._settling.settle_or_owe(Owed(record.manifest, record))

        return await to_its_end(work())

    async def hold(self, holding: Holding, manifest: Manifest, *, known: bool = True) -> None:
        """Serve a whole copy from now on, and say so; what lay at the same place before is given up.

        ``known`` says whether its name came from the metadata store; one that came from a peer is made known there.
        Raises ``StorageError`` where it cannot be remembered; it is not held then.
        """
        await to_its_end(self._hold(holding, manifest, known=known))

    async def _hold(self, holding: Holding, manifest: Manifest, *, known: bool) -> None:
        async with self._turns.of(keys_of([holding.record])):
            gone = await self._holdings.put([(holding, manifest)])
            if known:
                await self._announce(manifest.digest)
            else:
                said = self._settling.record_of(manifest.digest)
                await self._say(lambda: self._registry.republish([(holding.record, said)]))
        await self._take_back(gone)

    async def leave(self, digest: str) -> None:
        """Say that this node has no more than a part of an object. Raises as the metadata store."""
        async with self._turns.of([digest]):
            said = replace(self._settling.record_of(digest), state="partial")
            await self._membership.leased(lambda: self._registry.announce(digest, said))

    async def stay(self, digest: str) -> None:
        """Say again how much of an object this node has, now or when the metadata server is back."""
        async with self._turns.of([digest]):
            if digest in self._holdings.replicas:
                await self._announce(digest)

    async def _announce(self, digest: str) -> None:
        """Say how much of an object this node has; now, or when the metadata server is back."""
        said = self._settling.record_of(digest)
        await self._say(lambda: self._registry.announce(digest, said))

    async def _say(self, write: Callable[[], Awaitable[object]]) -> None:
        try:
            await self._membership.leased(write)
        except Exception as error:
            self._membership.lost()
            if not isinstance(error, MooncakeError):
                raise
            log.warning("%s; it will be announced again when the metadata server is back", error)

    # What is given up

    async def withdraw(self, holdings: Sequence[Holding]) -> bool | None:
        """Serve these no more; True if a name went from the metadata store with them, None if that is not known yet.

        Raises ``StorageError`` when they cannot be forgotten; all are held then as before.
        """

        async def work() -> bool | None:
            await self._holdings.remove_all(holdings)
            return await self._take_back(holdings)

        return await to_its_end(work())

    async def give_up(self, holding: Holding, reason: str) -> None:
        """Serve it no more, whether or not it can be forgotten now: its bytes are wrong, for this reason."""

        async def work() -> None:
            await self._holdings.give_up(holding, reason)
            await self._take_back([holding])

        await to_its_end(work())

    async def source_changed(self, holding: Holding, reason: str) -> None:
        """Say that a holding was given up because its files changed."""
        await to_its_end(self._take_back([holding]))
        log.info("withdrew %s: %s", holding.name, reason)

    async def farewell(self, *, for_good: bool) -> None:
        """Take back what this node will not hold again when it ends: memory, or ``for_good`` everything.

        Else the names would stay behind and stand for what nobody has. Raises as the metadata store.
        """
        gone: dict[str, list[str]] = {}
        for digest in list(self._holdings.replicas):
            mine = self._holdings.of(digest)
            if mine and (for_good or all(holding.root is None for holding in mine)):
                gone[digest] = [holding.name for holding in mine]
        left = list(gone.items())
        while left:
            some, left = left[:FAREWELLS_AT_ONCE], left[FAREWELLS_AT_ONCE:]
            await asyncio.gather(*(self._registry.withdraw(digest, names) for digest, names in some))

    async def _take_back(self, gone: Sequence[Holding]) -> bool | None:
        """Say that these are held no more; True if a name went with them. What cannot be said is owed: None then."""
        removed: bool | None = False
        for holding in gone:
            record = holding.record
            async with self._turns.of(keys_of([record])):
                went = await self._settling.settle_or_owe(Owed(record.manifest, record))
            removed = None if went is None or removed is None else went or removed
        return removed

    async def republish(self) -> None:
        """Say again all that this node has."""
        holdings, replicas = self._holdings, self._holdings.replicas
        there = list(holdings)
        for name in await self._registry.republish([(h.record, self._settling.record_of(h.digest)) for h in there]):
            log.warning("%s meanwhile stands for other content; this node still serves the old", name)
        parts = [replica for replica in replicas.values() if not replica.have.full]
        for replica in parts:
            await self._registry.announce(replica.manifest.digest, ReplicaRecord(self._name, "partial", replica.role))
        # What changed meanwhile. Nobody's turn is waited for: it may be theirs who wait for this.
        for holding in there:
            if not self._settling.holds(holding.record):
                self._settling.owe(Owed(holding.digest, holding.record))
        for replica in parts:
            if replicas.get(replica.manifest.digest) is not replica or replica.have.full:
                self._settling.owe(Owed(replica.manifest.digest))

    # How it is done

    def _has_others(self, record: ObjectRecord) -> bool:
        """Whether this node holds other content under that name."""
        return any(holding.digest != record.manifest for holding in self._holdings.named(record.name))


def _still_wanted(given_up: asyncio.Event) -> None:
    if given_up.is_set():
        raise asyncio.CancelledError
