"""Parts of objects that this node serves: files that a get chose, without the others; and how they are remembered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import StorageError
from engine.memory.file_spans import FileSpan
from p2pstore.cluster.records import ObjectRecord
from p2pstore.holding.holdings import Holdings
from p2pstore.holding.part_copy import PartCopy
from p2pstore.holding.part_table import KeptPart, PartTable
from p2pstore.holding.publisher import Publisher
from p2pstore.holding.replica import Replica
from p2pstore.holding.same_content import same_files
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.source import stamp_fault
from p2pstore.supervisor import Policy, Supervisor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Served:
    replica: Replica
    record: ObjectRecord
    place: Path
    part: PartCopy


class PartCopies:
    """One part a content, since nothing is served twice. For the event loop's thread."""

    def __init__(self, publisher: Publisher, holdings: Holdings, table: PartTable, supervisor: Supervisor) -> None:
        self._publisher = publisher
        self._holdings = holdings
        self._table = table
        self._supervisor = supervisor
        self._loop = asyncio.get_running_loop()
        self._served: dict[str, _Served] = {}

    async def serve(self, kept: KeptPart, note: Callable[[str], None]) -> bool:
        """Serve these files, and remember them, until they are withdrawn, or one is no longer what it was.

        Returns whether this node does: not where it serves the object already, or another part of it. ``note`` hears
        why they are not remembered, where they are not.
        """
        digest, part = kept.manifest.digest, self._copy(kept)
        if not part.verified.count:
            return False
        replica = await self._publisher.serve_partial(part, kept.record)
        if self._holdings.replicas.get(digest) is not replica:
            return False
        self._served[digest] = _Served(replica, kept.record, kept.place, part)
        try:
            await asyncio.to_thread(self._table.keep, kept)
        except StorageError as error:
            log.warning("what is here of %s is served until the agent ends: %s", kept.record.name, error)
            note(f"these files are served until the agent ends, and not by the next one: {error}")
        return True

    def _copy(self, kept: KeptPart) -> PartCopy:
        digest = kept.manifest.digest

        def lost(reason: str) -> None:
            self._loop.call_soon_threadsafe(self.lose, digest, reason)

        return PartCopy(kept.manifest, kept.numbers, kept.spans, lost)

    async def restore(self) -> None:
        """Serve again what is remembered, before anybody is told of it: whoever joins the cluster says it.

        A file whose stamp differs is hashed again, since it may have been copied or touched; one that has other bytes
        is dropped, with a line in the log.
        """
        for kept in await asyncio.to_thread(lambda: list(self._table.load())):
            digest = kept.manifest.digest
            now = kept if self._holdings.of(digest) else await asyncio.to_thread(_checked, kept)
            if self._holdings.of(digest) or not now.numbers:
                await self._forget(digest)
                continue
            if now is not kept:
                try:
                    await asyncio.to_thread(self._table.keep, now)
                except StorageError as error:
                    log.warning("%s is looked at again at the next start, too: %s", now.place, error)
            part = self._copy(now)
            replica = await self._holdings.serve_partial(part)
            if self._holdings.replicas.get(digest) is replica:
                self._served[digest] = _Served(replica, now.record, now.place, part)

    def named(self, name: str) -> tuple[ObjectRecord, Path] | None:
        """What of an object this node serves in part, and where that lies."""
        for each in self._served.values():
            if each.record.name == name and self._is_served(each):
                return each.record, each.place
        return None

    def _is_served(self, each: _Served) -> bool:
        digest = each.part.manifest.digest
        return self._holdings.replicas.get(digest) is each.replica and not self._holdings.of(digest)

    def all(self) -> list[tuple[str, PartCopy]]:
        """What this node serves in part now, by the digests of the objects."""
        return [(digest, each.part) for digest, each in self._served.items() if self._is_served(each)]

    def held(self) -> list[tuple[ObjectRecord, Path, PartCopy]]:
        """What this node serves in part now: of what, where it lies, and which files."""
        return [(each.record, each.place, each.part) for each in self._served.values() if self._is_served(each)]

    async def forget_whole(self) -> None:
        """Remember no more as parts what has come whole since."""
        for digest, each in list(self._served.items()):
            if not self._is_served(each):
                del self._served[digest]
                await self._forget(digest)

    def lose(self, digest: str, reason: str) -> None:
        """A file of a part is not what it was: serve none of it any more, and say so in the background."""
        each = self._served.pop(digest, None)
        if each is None:
            return
        log.warning("what is here of %s is no longer served: %s", each.record.name, reason)
        self._publisher.drop_partial(each.replica, each.record)
        self._supervisor.start("forgetting of what changed", "get", lambda: self._forget(digest), Policy.ONCE)

    async def withdraw(self, record: ObjectRecord) -> bool | None:
        """Serve a part no more. As ``Publisher.withdraw`` otherwise; raises ``StorageError``, and serves it then."""
        await asyncio.to_thread(self._table.forget, record.manifest)
        each = self._served.pop(record.manifest, None)
        return False if each is None else await self._publisher.withdraw_partial(each.replica, each.record)

    async def _forget(self, digest: str) -> None:
        """Where the catalog has no room for that, the next start finds out again what is here."""
        if digest in self._served:
            return  # another part came meanwhile, in place of that one
        try:
            await asyncio.to_thread(self._table.forget, digest)
        except StorageError as error:
            log.warning("a part that is no longer served is not forgotten yet: %s", error)


def _checked(kept: KeptPart) -> KeptPart:
    """What of a part is still what it was; itself where that is all of it, to the stamps. Reads what was touched."""
    numbers: list[int] = []
    spans: list[FileSpan] = []
    for number, span in zip(kept.numbers, kept.spans, strict=True):
        fault = stamp_fault(span)
        if fault:
            entry = replace(kept.manifest.columns[number], path="")
            alone = Manifest("file", kept.manifest.hash, kept.manifest.chunk_size, [entry])
            found = same_files(Path(span.path), alone)
            if found is None:
                log.warning("%s: %s; it is no longer served of %s", span.path, fault, kept.record.name)
                continue
            spans.append(found[0])
        else:
            spans.append(span)
        numbers.append(number)
    return kept if spans == list(kept.spans) else replace(kept, numbers=numbers, spans=spans)
