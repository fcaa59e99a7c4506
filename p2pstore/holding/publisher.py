"""The publisher: says to the cluster what this node holds, and takes back what it holds no more."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from p2pstore.cluster.membership import Membership
from p2pstore.cluster.records import ObjectRecord, ReplicaRecord
from p2pstore.cluster.registry import Registry, new_object
from p2pstore.errors import MetadataRefused, MetadataUnavailable, MooncakeError, ObjectExists
from p2pstore.holding.catalog import Holding
from p2pstore.holding.holdings import Holdings
from p2pstore.metadata.store import LeaseLost
from p2pstore.objects.manifest import Manifest
from p2pstore.supervisor import Policy, Supervisor

log = logging.getLogger(__name__)

T = TypeVar("T")


class Publisher:
    """Keeps what the cluster is told of this node's holdings, and these holdings, in step."""

    def __init__(self, registry: Registry, holdings: Holdings, membership: Membership, supervisor: Supervisor) -> None:
        self._registry = registry
        self._holdings = holdings
        self._membership = membership
        self._supervisor = supervisor
        self._name = registry.node

    async def publish(self, name: str, manifest: Manifest, *, force: bool) -> ObjectRecord:
        """Give the manifest a name in the metadata store, with this node as its gold replica."""
        record = new_object(name, self._name, manifest)
        return await self._leased(lambda: self._registry.publish(record, force=force))

    async def publish_all(
        self, objects: Sequence[tuple[str, Manifest]], *, force: bool
    ) -> list[ObjectRecord | ObjectExists]:
        """As ``publish``, for many; see ``Registry.publish_all``."""
        wanted = [new_object(name, self._name, manifest) for name, manifest in objects]
        return await self._leased(lambda: self._registry.publish_all(wanted, force=force))

    async def replace(self, published: Sequence[tuple[Holding, Manifest]], lease: int) -> None:
        """Hold what was just published; give up what lay at its places, and other content under its names.

        The publication said that this node has it. That is said again only where ``lease``, the node's at the time, was
        lost since: whoever took the new one did not know of these holdings yet.
        """
        for holding, _ in published:
            for before in self._holdings.displaced_by(holding):
                await self.withdraw(before)
        self._holdings.add_all(published)
        if self._registry.lease != lease:
            for _, manifest in published:
                await self.announce(manifest.digest, ReplicaRecord(self._name, "complete", "gold"))
        for holding, manifest in published:
            for old in self._holdings.named(holding.name):
                if old.digest != manifest.digest:
                    await self.withdraw(old)

    async def hold(self, holding: Holding, manifest: Manifest, *, known: bool = True) -> None:
        """Serve a whole copy from now on, and say so; what lay at the same place before is given up.

        ``known`` says whether its name came from the metadata store; one that came from a peer is made known there.
        """
        for before in self._holdings.displaced_by(holding):
            await self.withdraw(before)
        replica = self._holdings.add(holding, manifest)
        record = ReplicaRecord(self._name, "complete", replica.role)
        if known:
            await self.announce(manifest.digest, record)
        else:
            await self._say(lambda: self._registry.republish([(holding.record, record)]))

    async def announce(self, digest: str, replica: ReplicaRecord) -> None:
        """Say that this node has part or all of an object; now, or when the metadata server is back."""
        await self._say(lambda: self._registry.announce(digest, replica))

    async def _say(self, write: Callable[[], Awaitable[object]]) -> None:
        try:
            await self._leased(write)
        except (MooncakeError, LeaseLost) as error:
            log.warning("%s; it will be announced again when the metadata server is back", error)
            self._membership.lost()

    async def withdraw(self, holding: Holding) -> bool:
        """Serve a holding no more; True if its name went from the metadata store with it."""
        self._holdings.remove(holding)
        return await self._take_back(holding)

    async def _take_back(self, holding: Holding) -> bool:
        """Say that a holding is served no more, unless there is another copy of it; True if its name went with it.

        When that cannot be said now, the lease that the announcement hangs on is given up: it runs out, and what this
        node still holds is announced again under a new one.
        """
        if any(other.digest == holding.digest for other in self._holdings.named(holding.name)):
            return False
        try:
            if holding.digest in self._holdings.replicas:
                return await self._registry.drop_name(holding.record)
            return bool(await self._registry.withdraw(holding.digest, [holding.name]))
        except (MetadataUnavailable, MetadataRefused) as error:
            log.warning("%s; what was withdrawn stays listed until its lease has run out", error)
            self._membership.lost()
            return False

    def withdraw_later(self, digest: str) -> None:
        """Take back the announcement of a partial replica, in the background; its lease would do so in time."""
        name = "withdrawal of what was got in part"
        self._supervisor.start(name, "get", lambda: self._withdraw_quietly(digest), Policy.ONCE)

    async def _withdraw_quietly(self, digest: str) -> None:
        if digest not in self._holdings.replicas:
            with contextlib.suppress(MooncakeError):  # the metadata server does not answer, which the keeper finds out
                await self._registry.withdraw(digest, [])

    async def source_changed(self, holding: Holding, reason: str) -> None:
        """Say that a holding was given up because its files changed."""
        await self._take_back(holding)
        log.info("withdrew %s: %s", holding.name, reason)

    async def republish(self) -> None:
        """Say again all that this node has."""
        replicas = self._holdings.replicas
        whole = [(h.record, ReplicaRecord(self._name, "complete", replicas[h.digest].role)) for h in self._holdings]
        for name in await self._registry.republish(whole):
            log.warning("%s meanwhile stands for other content; this node still serves the old", name)
        for digest, replica in list(replicas.items()):
            if not replica.have.full:
                await self._registry.announce(digest, ReplicaRecord(self._name, "partial", replica.role))

    async def _leased(self, write: Callable[[], Awaitable[T]]) -> T:
        """Do a leased write; join again first when the lease turns out to be gone."""
        try:
            return await write()
        except LeaseLost:
            await self._membership.join()
            return await write()
