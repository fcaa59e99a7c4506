"""What was said to the cluster and may not be so: it is made to agree with what is held, at once or later.

What cannot be taken back at once is *owed*, and tried again until it is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.net.backoff import Backoff
from p2pstore.cluster.membership import Membership
from p2pstore.cluster.records import ObjectRecord, ReplicaRecord
from p2pstore.cluster.registry import Registry
from p2pstore.errors import MooncakeError
from p2pstore.holding.holdings import Holdings
from p2pstore.holding.turns import Turns
from p2pstore.supervisor import Supervisor

log = logging.getLogger(__name__)

SETTLE_AGAIN = Backoff(0.5, 10.0, (0.5, 1.0))
"""Seconds between attempts to take back what is owed."""


@dataclass(frozen=True)
class Owed:
    """Something that was said and may not be so: of a content, and of a name, which stood for ``before``."""

    digest: str
    record: ObjectRecord | None = None
    before: ObjectRecord | None = None
    died: bool = False  # whoever had all of it may come back


class Settling:
    """Makes what is said agree with what is held. Whoever changes what is said of something has its turn."""

    def __init__(self, registry: Registry, holdings: Holdings, membership: Membership, supervisor: Supervisor) -> None:
        self.turns = Turns()
        self.fault = ""
        """Why the metadata server has not been told yet what is not so any more; empty where it has."""
        self._registry = registry
        self._holdings = holdings
        self._membership = membership
        self._supervisor = supervisor
        self._owed: dict[tuple[str, str], Owed] = {}
        self._running = False

    async def settle_or_owe(self, owed: Owed) -> bool | None:
        """Make what is said of a content and a name agree with what is held; True if the name went.

        What fails is tried again later, and None. The caller has their turn.
        """
        try:
            return await self._settle(owed)
        except Exception as error:  # noqa: BLE001 - whatever it was, what was said must not be forgotten
            self._log(error)
            self.owe(owed)
            return None

    async def _settle(self, owed: Owed) -> bool:
        registry, record, digest = self._registry, owed.record, owed.digest
        held = record is not None and self.holds(record)
        removed = False
        if digest in self._holdings.replicas:
            said = self.record_of(digest)
            await self._membership.leased(lambda: registry.announce(digest, said))
            if record is not None and not held:
                removed = await registry.drop_name(record)
        else:
            names = [record.name] if record is not None else []
            removed = bool(await registry.withdraw(digest, names, died=owed.died))
        if record is not None and not held:
            for older in self._older(record, owed.before):
                if not await registry.dead(older):
                    await registry.name_again([older])
                    break
        return removed

    def _older(self, record: ObjectRecord, before: ObjectRecord | None) -> Iterator[ObjectRecord]:
        """What a name may stand for again, when it does not stand for this any more: the latest first."""
        if before is not None and before.manifest != record.manifest:
            yield before
        others = [h.record for h in self._holdings.named(record.name) if h.digest != record.manifest]
        yield from sorted(others, key=lambda other: other.created, reverse=True)

    def owe(self, owed: Owed) -> None:
        """Settle it later, in a turn of its own."""
        name = owed.record.name if owed.record is not None else ""
        self._owed[name, owed.digest] = owed
        if not self._running:
            self._running = True
            self._supervisor.start("taking back what is not so", "node", self._run)

    async def _run(self) -> None:
        """Try again what is owed until nothing is."""
        failures = 1
        try:
            while self._owed:
                await asyncio.sleep(SETTLE_AGAIN.after(failures))
                failures = 1 if await self._settle_each() else failures + 1
        finally:
            self._running = False
            self.fault = ""

    async def _settle_each(self) -> bool:
        """Try each that is owed, up to the first that fails; whether none did."""
        for key, owed in list(self._owed.items()):
            async with self.turns.of(keys_of([owed.record]) if owed.record is not None else [owed.digest]):
                try:
                    await self._settle(owed)
                except Exception as error:  # noqa: BLE001 - whatever it was, what is owed is tried again
                    self._log(error)
                    return False
                if self._owed.get(key) is owed:
                    del self._owed[key]
        return True

    def _log(self, error: Exception) -> None:
        """Once, however often it is met while something is owed."""
        if str(error) != self.fault:
            self.fault = str(error)
            trace = None if isinstance(error, MooncakeError) else error
            log.warning("%s; it will be taken back later", error, exc_info=trace)

    def holds(self, record: ObjectRecord) -> bool:
        """Whether this node holds that content under that name."""
        return any(holding.digest == record.manifest for holding in self._holdings.named(record.name))

    def record_of(self, digest: str) -> ReplicaRecord:
        """How much this node has of a content that it serves."""
        replica = self._holdings.replicas[digest]
        return ReplicaRecord(self._registry.node, replica.state, replica.role)


def keys_of(records: Iterable[ObjectRecord]) -> list[str]:
    """What of these has a turn. A name's key is never a digest: that has no prefix."""
    return [key for record in records for key in (record.manifest, f"name:{record.name}")]
