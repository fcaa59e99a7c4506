"""What lies on this node: listed, pinned, deleted when somebody asks for it, and kept within a quota.

A copy is deleted in this order: nobody else's files are among its own; another node has all of it, and says so itself;
it is served no more; then its files go. Others are told first that this node has only a part, so that of two nodes that
delete their copies of one object at once, one sees the other leave.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engine.errors import MooncakeError
from engine.net.within import within
from p2pstore.cluster.peer_client import PeerClient
from p2pstore.cluster.registry import Registry
from p2pstore.errors import CopyStays, LastCopy, NotAllDeleted, NotHeld
from p2pstore.holding.catalog import Holding
from p2pstore.holding.copy_note import inodes
from p2pstore.holding.deletion import Deleted, NotTheSame, check, delete, shared_inodes
from p2pstore.holding.eviction import GOLD, KEPT, PART, Copy, Criteria, Quota
from p2pstore.holding.holdings import Holdings
from p2pstore.holding.part_copies import PartCopies
from p2pstore.holding.publisher import Publisher
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.waiting import to_its_end

log = logging.getLogger(__name__)

ASK_SECONDS = 3.0
"""For another holder to say that it has all of an object."""

WATCH_SECONDS = 30.0
"""Between two looks at whether the quota is kept, and at what was used."""

Key = tuple[str, str]
"""Name and place of a copy."""


class Cache:
    """The copies of one node. For one event loop."""

    def __init__(
        self,
        holdings: Holdings,
        publisher: Publisher,
        parts: PartCopies,
        registry: Registry,
        client: PeerClient,
        *,
        quota: Quota | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``clock`` tells seconds since the epoch."""
        self.quota = quota
        self.evicted = 0
        """Copies that the quota took."""
        self.deleted_bytes = 0
        """Of files that were deleted, whoever asked for it."""
        self._holdings = holdings
        self._publisher = publisher
        self._parts = parts
        self._registry = registry
        self._client = client
        self._clock = clock
        self._deleting = asyncio.Lock()
        self._fault = ""

    def copies(self) -> list[Copy]:
        """All that there are, by name."""
        whole = [_copy_of(holding) for holding in self._holdings]
        parts = [
            Copy(record.name, str(place), record.manifest, PART, part.size, len(part.spans))
            for record, place, part in self._parts.held()
        ]
        return sorted([*whole, *parts], key=lambda copy: (copy.name, copy.place))

    async def listing(self) -> dict[str, Any]:
        """Every copy, and the quota, for JSON."""
        copies = await asyncio.to_thread(self.copies)
        return {"copies": [to_json(copy) for copy in copies], "quota": self._quota_of(copies)}

    def _quota_of(self, copies: Sequence[Copy]) -> dict[str, Any] | None:
        quota = self.quota
        return None if quota is None else {**asdict(quota), "taken": quota.taken(copies)}

    async def pin(self, names: Sequence[str], *, pinned: bool) -> list[dict[str, Any]]:
        """Pin copies, named by object or by absolute path, or let go of them; each that is meant, as it is then.

        Raises ``NotHeld``, before anything is changed, for a name or path of which there is no copy; ``StorageError``.
        """
        meant: dict[int, Holding] = {}
        for name in names:
            found = self._holdings.lying_at(Path(name)) if name.startswith("/") else self._holdings.named(name)
            if not found:
                raise NotHeld(name=name)
            meant.update((id(holding), holding) for holding in found)
        for holding in meant.values():
            await self._holdings.pin(holding, pinned=pinned)
        return [to_json(_copy_of(holding)) for holding in meant.values()]

    async def plan(self, criteria: Criteria) -> tuple[list[Copy], list[Copy]]:
        """What a prune would delete, as far as is known without asking others or looking at files; and what stays."""
        copies = await asyncio.to_thread(self.copies)
        return criteria.chosen(copies, self._clock()), [copy for copy in copies if copy.stays]

    async def doubt(
        self,
        key: Key,
        manifest: str = "",
        *,
        by_name: bool = False,
        last_copies: bool = False,
        without: Collection[Key] = frozenset(),
    ) -> MooncakeError | None:
        """Why a copy would not be deleted now; None where it would be. Changes nothing.

        ``without`` are copies that are to be deleted before it.
        """
        try:
            holding = self._find(key, manifest)
            await self._look(holding, by_name=by_name)
            if not last_copies and not await self._known_elsewhere(holding, without):
                return _last(holding)
        except MooncakeError as error:
            return error
        return None

    async def delete(
        self, key: Key, manifest: str = "", *, by_name: bool = False, last_copies: bool = False
    ) -> Deleted:
        """Serve a copy no more and delete its files. With ``manifest`` only if it is still of that content.

        ``by_name``: somebody named just this one, which may be one that was kept of a stream. With ``last_copies``
        nobody else need have it. Raises ``NotHeld``, ``CopyStays`` or ``LastCopy`` (all is then as before),
        ``NotAllDeleted``, or ``StorageError``.
        """
        return await to_its_end(self._delete(key, manifest, by_name=by_name, last_copies=last_copies))

    async def _delete(self, key: Key, manifest: str, *, by_name: bool, last_copies: bool) -> Deleted:
        async with self._deleting:
            holding = self._find(key, manifest)
            await self._look(holding, by_name=by_name)
            if not last_copies:
                await self._leave(holding)
            shape = self._holdings.manifest(holding.digest)
            assert shape is not None  # noqa: S101 - a holding has its manifest
            try:
                removed = await self._publisher.withdraw([holding])
            except MooncakeError:  # it is held as before, and said to be in part
                await self._publisher.stay(holding.digest)
                raise
            root = holding.root
            assert root is not None  # noqa: S101 - it was looked at
            if self._holdings.lying_at(root):  # something came there meanwhile
                raise CopyStays(path=holding.place, detail="another copy lies there by now")
            directories = shape.all_directories() if shape.kind == "directory" else ()
            try:
                gone = await asyncio.to_thread(delete, root, holding.spans, directories, holding.note)
            except NotTheSame as error:
                gone = Deleted(left=str(error))
            self.deleted_bytes += gone.bytes
            if gone.left and not gone.files:
                await self._hold_again(holding, shape)
                raise CopyStays(path=holding.place, detail=gone.left)
            log.info("deleted the copy of %s at %s: files %d, bytes %d", holding.name, root, gone.files, gone.bytes)
            if gone.left:
                raise NotAllDeleted(path=holding.place, files=gone.files, detail=gone.left)
            return replace(gone, removed=removed)

    def _find(self, key: Key, manifest: str) -> Holding:
        name, place = key
        for holding in self._holdings.named(name):
            if holding.place == place and manifest in {"", holding.digest}:
                return holding
        raise NotHeld(name=name if not manifest else f"{name}@sha256:{manifest}")

    async def _look(self, holding: Holding, *, by_name: bool) -> None:
        """Raise ``CopyStays`` for a copy that is not to be deleted, or whose files are not what they were."""
        copy, root = _copy_of(holding), holding.root
        named = by_name and copy.written and copy.role == KEPT and not copy.pinned
        stays = "" if named else copy.stays
        if stays or root is None:
            raise CopyStays(path=holding.place, detail=stays or "it is memory of a process")
        try:
            await asyncio.to_thread(check, root, holding.spans, holding.note)
        except NotTheSame as error:
            raise CopyStays(path=holding.place, detail=str(error)) from None
        others = [other for other in self._holdings if other is not holding and other.root is not None]
        parts = self._parts.held()

        def theirs() -> Iterator[tuple[str, Iterator[tuple[int, int]]]]:
            for other in others:
                yield other.name, inodes(other.spans)
            for record, _, part in parts:
                yield record.name, inodes(part.spans)

        shared = await asyncio.to_thread(lambda: shared_inodes(holding.spans, theirs()))
        if shared:
            raise CopyStays(path=holding.place, detail=f"this node serves the same files as {shared}, too")

    async def _others_have_it(self, holding: Holding, without: Collection[Key]) -> bool:
        """Whether all of a content is here a second time, or at another node that answers and says so itself."""
        digest = holding.digest
        for other in self._holdings.of(digest):
            stays = other is not holding and (other.name, other.place) not in without
            if stays and not await asyncio.to_thread(self._holdings.fault, other):
                return True
        replicas = await self._registry.replicas(digest)
        names = [r.node for r in replicas.values() if r.node != self._registry.node and r.state == "complete"]
        nodes = await self._registry.nodes(names)
        for name in names:
            if name in nodes and await self._has_all(nodes[name].control, digest, holding.record.chunks):
                return True
        return False

    async def _has_all(self, control: str, digest: str, chunks: int) -> bool:
        try:
            return await within(self._client.count(control, digest), ASK_SECONDS) == chunks
        except (MooncakeError, asyncio.TimeoutError):
            return False

    async def _leave(self, holding: Holding) -> None:
        """Say that this node has no whole copy any more, then see that another has. Raises ``LastCopy``."""
        digest = holding.digest
        await self._see_it_elsewhere(holding)
        if len(self._holdings.of(digest)) > 1:
            return
        try:
            await self._publisher.leave(digest)
            await self._see_it_elsewhere(holding)
        except BaseException:
            await self._publisher.stay(digest)
            raise

    async def _see_it_elsewhere(self, holding: Holding) -> None:
        if not await self._known_elsewhere(holding):
            raise _last(holding)

    async def _known_elsewhere(self, holding: Holding, without: Collection[Key] = frozenset()) -> bool:
        """As ``_others_have_it``. Raises ``LastCopy`` where nobody can be asked."""
        try:
            return await self._others_have_it(holding, without)
        except MooncakeError as error:
            raise LastCopy(name=holding.name, path=holding.place, detail=f" ({error})") from None

    async def _hold_again(self, holding: Holding, shape: Manifest) -> None:
        """Nothing was deleted after all: serve it as before, unless somebody changed it."""
        if not await asyncio.to_thread(self._holdings.fault, holding):
            await self._publisher.hold(holding, shape)

    # The quota

    async def watch(self) -> None:
        """Keep to the quota, and have the catalog know what was used, for ever."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            await self._holdings.save_notes()
            await self.evict()

    async def evict(self) -> list[Copy]:
        """Delete what is over the quota; what went. What cannot go is passed over, and the log says why, once."""
        if self.quota is None:
            return []
        gone: list[Copy] = []
        passed: set[Key] = set()
        while True:
            wanted = self.quota.evicted(await asyncio.to_thread(self.copies), self._clock(), passed)
            if not wanted:
                return gone
            copy = wanted[0]
            passed.add((copy.name, copy.place))
            try:
                await self.delete((copy.name, copy.place), copy.manifest)
            except MooncakeError as error:
                self._note_fault(str(error))
            else:
                self.evicted += 1
                gone.append(copy)
                log.info("the quota took %s at %s", copy.name, copy.place)

    def _note_fault(self, text: str) -> None:
        if text != self._fault:
            self._fault = text
            log.warning("the cache is over its quota: %s", text)


def to_json(copy: Copy) -> dict[str, Any]:
    """For the API: a copy, times in seconds since the epoch or None, and why it stays (empty: it may be deleted)."""
    return {**asdict(copy), "since": copy.since or None, "used": copy.used or None, "stays": copy.stays}


def _copy_of(holding: Holding) -> Copy:
    note, record = holding.note, holding.record
    role = KEPT if holding.role == GOLD and note.wrote else holding.role
    return Copy(
        record.name,
        holding.place,
        record.manifest,
        role,
        record.size,
        record.files,
        note.since,
        note.used,
        note.pinned,
        bool(note.wrote),
    )


def _last(holding: Holding) -> LastCopy:
    return LastCopy(name=holding.name, path=holding.place, detail="")
