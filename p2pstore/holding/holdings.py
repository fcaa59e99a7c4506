"""The holdings of a running node: each served through the engine, watched for changes, remembered in the catalog.

All methods but those that say otherwise run on the event loop's thread, the only writer. What takes long with many
files (the catalog, the engine, a look at the files) runs in threads. Changes are made one after the other, and each to
its end: what is in the catalog is what is held.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from engine.errors import AddressError, SourceChanged, StorageError
from engine.memory.buffers import Buffer, FileRun, FilesBuffer
from engine.memory.file_spans import FileSpan
from engine.memory.joined_buffer import JoinedBuffer
from engine.serving.segment_server import SegmentServer
from p2pstore.holding.catalog import Catalog, Holding
from p2pstore.holding.index import Index
from p2pstore.holding.replica import Replica
from p2pstore.holding.same_content import same_files
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import release
from p2pstore.objects.source import changed, look, reading_fault, renumbered
from p2pstore.objects.waiting import to_its_end

log = logging.getLogger(__name__)

WATCH_SECONDS = 2.0
"""How often every registered file is looked at; longer when a look takes more than a twentieth of that."""

MAX_UNREAD = 10_000
"""Paths that could not be read which are remembered until the next look."""

LOOKED_AT_ONCE = 256
"""Holdings that a thread looks at before what it found is acted on."""

Changed = Callable[[Holding, str], Awaitable[None]]
"""Called after a holding was given up because its files changed, with the reason."""


class PartialCopy(Protocol):
    """What a get has of an object so far, in its partial form."""

    manifest: Manifest
    verified: Bitmap

    def partial_buffer(self, servable: Callable[[int, int], bool]) -> Buffer:
        """The buffer by which peers may read the ranges that ``servable(offset, length)`` allows."""


class Holdings:
    """What this node holds whole, and the replicas (whole or partial) that it serves, by manifest digest."""

    def __init__(self, engine: SegmentServer, catalog: Catalog, on_changed: Changed) -> None:
        self.replicas: dict[str, Replica] = {}
        self._engine = engine
        self._catalog = catalog
        self._on_changed = on_changed
        self._loop = asyncio.get_running_loop()
        self.on_touched: Callable[[Holding], None] = lambda _: None
        """Called for a holding that has files that were touched, at each look until their stamps are new."""
        self._held = Index()
        self._manifests: dict[str, Manifest] = {}
        self._served: dict[str, Holding] = {}
        self._look = asyncio.Event()
        self._unread: dict[str, int] = {}  # paths that could not be read, and at which offset
        self._changing = asyncio.Lock()
        self._to_do: list[Callable[[], object]] = []  # by the engine, in a thread
        self._to_forget: list[Holding] = []  # given up, and still in the catalog: it had no room
        self._to_tell: list[tuple[Holding, str]] = []  # given up, and ``on_changed`` has not returned yet

    def __iter__(self) -> Iterator[Holding]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def close(self) -> None:
        """Serve nothing any more, and give memory back to those who lent it: the node ends, and the engine with it.

        A get that still runs finds that what it brought is not served.
        """
        for replica in self.replicas.values():
            replica.withdrawn()
        self.replicas.clear()
        for holding in self:
            release(holding.views)

    @property
    def names(self) -> int:
        """How many names there are."""
        return self._held.names

    def named(self, name: str) -> list[Holding]:
        """The holdings of that name."""
        return self._held.named(name)

    def of(self, digest: str) -> list[Holding]:
        """The holdings of that content."""
        return self._held.of(digest)

    def at(self, root: Path) -> Holding | None:
        """The holding whose files lie at ``root``."""
        return self._held.at(root)

    def lying_at(self, root: Path) -> list[Holding]:
        """All holdings whose files lie at ``root``."""
        return self._held.lying_at(root)

    def displaced_by(self, new: Holding) -> list[Holding]:
        """The holdings of other content whose place ``new`` takes: any at its root, or its name's in memory."""
        return self._held.displaced_by(new)

    def served(self, digest: str) -> Holding | None:
        """The holding from which that content is served."""
        return self._served.get(digest)

    def __contains__(self, holding: Holding) -> bool:
        """Whether this very holding is held, not one that took its place."""
        return holding in self._held

    def manifest(self, digest: str) -> Manifest | None:
        """The manifest of something that is held or being pulled."""
        replica = self.replicas.get(digest)
        return self._manifests.get(digest) or (replica.manifest if replica else None)

    def fault(self, holding: Holding) -> str:
        """How a holding's files differ from their stamps, in a few words; empty when they do not. Any thread."""
        return _look_at(holding)[0]

    def read(self, digest: str, offset: int, view: memoryview) -> bool:
        """Fill ``view`` from a replica of this node; False where it does not serve that any more. Any thread."""
        replica = self.replicas.get(digest)
        if replica is None or not replica.address:
            return False
        try:
            with self._engine.lease(replica.address + offset, len(view)) as lease:
                lease.buffer.read_into(lease.offset, view)
        except (AddressError, SourceChanged):
            return False
        return True

    def file_run(self, digest: str, offset: int, length: int) -> FileRun | None:
        """A descriptor of the file that holds the first of these bytes of a replica; None where there is none."""
        replica = self.replicas.get(digest)
        if replica is None or not replica.address:
            return None
        try:
            with self._engine.lease(replica.address + offset, length) as lease:
                return lease.buffer.file_run(lease.offset, length)
        except (AddressError, SourceChanged):
            return None

    async def restore(self) -> list[Holding]:
        """Serve again what the catalog says; give up, with a line in the log, what is no longer what it was.

        A file whose stamp differs is hashed again: it may have been copied or touched. Returns what was given up.
        """
        lost = []
        known = await asyncio.to_thread(lambda: list(self._catalog.load()))
        faults, _ = await asyncio.to_thread(_look, [holding for holding, _ in known])
        for number, (holding, manifest) in enumerate(known):
            fault = faults.get(number, "")
            if fault and holding.root is not None:
                spans = await asyncio.to_thread(same_files, holding.root, manifest)
                if spans is None:
                    log.warning("%s is no longer served: %s: %s", holding.name, holding.place, fault)
                    await self._forget(holding)
                    lost.append(holding)
                    continue
                holding = Holding(holding.record, holding.role, holding.root, spans)  # noqa: PLW2901 - its new stamps
                try:
                    await self._remember([(holding, manifest)], ())
                except StorageError as error:
                    log.warning("%s is hashed again at the next start, too: %s", holding.place, error)
            self._hold(holding, manifest, await asyncio.to_thread(self._buffer, holding, manifest))
        return lost

    async def add(self, holding: Holding, manifest: Manifest) -> Replica:
        """As ``put``, for one; the replica by which it is served."""
        await self.put([(holding, manifest)])
        return self.replicas[manifest.digest]

    async def put(self, new: Sequence[tuple[Holding, Manifest]], *, whole_name: bool = False) -> list[Holding]:
        """Hold, serve and remember these. Returns what is held no more instead.

        That is what lay at their places, and with ``whole_name`` also what other content is under their names, wherever
        it lies. Raises ``StorageError`` when the catalog cannot be written: all is then as it was.
        """
        return await to_its_end(self._put(new, whole_name=whole_name))

    async def _put(self, new: Sequence[tuple[Holding, Manifest]], *, whole_name: bool) -> list[Holding]:
        async with self._changing:
            displaced: dict[int, Holding] = {}
            for holding, manifest in new:
                others = self.displaced_by(holding)
                if whole_name:
                    others += [other for other in self.named(holding.name) if other.digest != manifest.digest]
                displaced.update((id(other), other) for other in others)
            gone = list(displaced.values())
            await self._remember(new, gone)
            buffers = await asyncio.to_thread(lambda: [self._buffer(*pair) for pair in new])
            await self._let_go(gone)
            for (holding, manifest), buffer in zip(new, buffers, strict=True):
                self._hold(holding, manifest, buffer)
            await self._catch_up()
            return gone

    async def _remember(self, new: Iterable[tuple[Holding, Manifest]], gone: Iterable[Holding]) -> None:
        """Write to the catalog what of these lies in files. Raises ``StorageError``."""
        in_files = [pair for pair in new if pair[0].root is not None]
        forgotten = [holding for holding in gone if holding.root is not None]
        if in_files or forgotten:
            await asyncio.to_thread(self._catalog.change, in_files, forgotten)

    def _hold(self, holding: Holding, manifest: Manifest, buffer: Buffer | None) -> None:
        self._held.add(holding)
        self._manifests[manifest.digest] = manifest
        self._serve(holding, manifest, buffer)

    def _buffer(self, holding: Holding, manifest: Manifest) -> Buffer | None:
        if not manifest.size:
            return None
        if holding.root is None:
            return JoinedBuffer(manifest.digest, [view[:] for view in holding.views])
        return FilesBuffer(manifest.digest, holding.spans, on_changed=self._suspect, on_unreadable=self._suspect_disk)

    def _serve(self, holding: Holding, manifest: Manifest, buffer: Buffer | None) -> None:
        digest = manifest.digest
        replica = self.replicas.get(digest)
        serving = self._served.get(digest)
        # The same place again has new stamps: the old buffer would refuse every byte of it.
        takes_over = serving is None or (serving.name, serving.place) == (holding.name, holding.place)
        if replica is None:
            replica = Replica(manifest, Bitmap(manifest.chunks, full=True), holding.role, self._loop)
            if buffer is not None:
                replica.address = self._engine.register(buffer)
            self.replicas[digest] = replica
        elif buffer is not None and takes_over and replica.address:
            self._to_do.append(partial(self._engine.replace, replica.address, buffer))
        elif buffer is not None:
            self._to_do.append(buffer.close)
        if not replica.have.full:  # another get of the same object is still at work on its own copy
            replica.have = Bitmap(manifest.chunks, full=True)
            replica.landed(range(manifest.chunks))
        if takes_over:
            self._served[digest] = holding
        if holding.role == "gold":
            replica.role = "gold"

    async def serve_partial(self, destination: PartialCopy) -> Replica:
        """Serve what a get has verified so far, unless this node already serves the object."""
        return await to_its_end(self._serve_partial(destination))

    async def _serve_partial(self, destination: PartialCopy) -> Replica:
        manifest = destination.manifest
        replica = Replica(manifest, destination.verified, "replica", self._loop)
        async with self._changing:
            if manifest.size and manifest.digest not in self.replicas:
                buffer = await asyncio.to_thread(destination.partial_buffer, replica.servable)
                replica.address = self._engine.register(buffer)
                self.replicas[manifest.digest] = replica
        return replica

    def drop_partial(self, replica: Replica) -> bool:
        """A get ended before it was whole. Returns whether its replica was served; if so, ``catch_up`` is called."""
        digest = replica.manifest.digest
        if self.replicas.get(digest) is not replica or digest in self._served:
            return False
        self._unserve(digest)
        return True

    async def remove(self, holding: Holding) -> bool:
        """As ``remove_all``, for one. Returns whether the node still serves the content, from another holding."""
        await self.remove_all([holding])
        return holding.digest in self._served

    async def remove_all(self, holdings: Sequence[Holding]) -> None:
        """Hold these no more. Raises ``StorageError`` when the catalog cannot be written; all are then as before."""
        await to_its_end(self._remove_all(holdings))

    async def _remove_all(self, holdings: Sequence[Holding]) -> None:
        async with self._changing:
            there = [holding for holding in holdings if holding in self._held]
            await self._remember((), there)
            await self._let_go(there)
            await self._catch_up()

    async def give_up(self, holding: Holding, reason: str = "") -> None:
        """As ``remove``, for what must not be served any longer: it is forgotten when the catalog can be written.

        ``reason`` is told to those who get it just now.
        """
        await to_its_end(self._give_up(holding, reason))

    async def _give_up(self, holding: Holding, reason: str) -> None:
        async with self._changing:
            if holding not in self._held:
                return  # it went a moment ago, or something took its place
            await self._let_go([holding], _for_others(holding, reason))
            await self._catch_up()
            await self._forget(holding)

    async def _forget(self, holding: Holding) -> None:
        """Remove from the catalog what is held no more; later, when it has no room for that."""
        try:
            await self._remember((), [holding])
        except StorageError as error:
            log.warning("%s is served no more; the catalog will forget it later: %s", holding.place, error)
            self._to_forget.append(holding)

    async def _forget_again(self) -> None:
        """Remove from the catalog what it had no room to forget, unless something is held there again."""
        async with self._changing:
            while self._to_forget:
                holding = self._to_forget[-1]
                if not self._held.at_place_of(holding):
                    try:
                        await self._remember((), [holding])
                    except StorageError:  # it is in the log already, and there is always a next look
                        return
                    log.info("the catalog has forgotten %s now", holding.place)
                self._to_forget.pop()

    async def _let_go(self, gone: Sequence[Holding], reason: str = "") -> None:
        for holding in gone:
            self._held.discard(holding)
            release(holding.views)  # what serves them has views of its own, until its last reader has left
        for holding in gone:
            digest = holding.digest
            if self._served.get(digest) is not holding:
                continue
            others = self.of(digest)
            if others:
                manifest = self._manifests[digest]
                buffer = await asyncio.to_thread(self._buffer, others[0], manifest)
                del self._served[digest]
                self._hold(others[0], manifest, buffer)
            else:
                del self._served[digest]
                self._unserve(digest, reason)
                self._manifests.pop(digest, None)

    async def catch_up(self) -> None:
        """Have the engine do what it still has to, and wait for that."""
        async with self._changing:
            await self._catch_up()

    async def _catch_up(self) -> None:
        to_do, self._to_do = self._to_do, []
        if to_do:
            await asyncio.to_thread(_do_all, to_do)

    def _unserve(self, digest: str, reason: str = "") -> None:
        replica = self.replicas.pop(digest, None)
        if replica is None:
            return  # the node ends
        if replica.address:
            self._to_do.append(partial(self._engine.unregister, replica.address))
        replica.withdrawn(reason)

    def _suspect(self, path: str, detail: str) -> None:
        """The engine refused to send a changed file: look at once. Any thread."""
        log.info("%s: %s", path, detail)
        self._loop.call_soon_threadsafe(self._look.set)

    def _suspect_disk(self, path: str, offset: int, detail: str) -> None:
        """The engine could not read a file: look at once, and try to read there. Any thread."""
        if len(self._unread) < MAX_UNREAD:
            self._unread[path] = offset
        self._suspect(path, detail)

    async def watch(self) -> None:
        """Look at every file now and then, for ever, and give up what changed.

        What changed is served no more at once, whether or not the catalog and ``on_changed`` go along; they are asked
        again at each look until they do. An error of ``on_changed`` goes up to whoever runs this, who may call it
        again.
        """
        pause = WATCH_SECONDS
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._look.wait(), pause)
            self._look.clear()
            began = time.monotonic()
            await self._forget_again()
            await self._look_at_all()
            pause = max(WATCH_SECONDS, 20 * (time.monotonic() - began))

    async def _look_at_all(self) -> None:
        """One look at every file. Between looks nothing may hold on to a holding, so that what it held can be freed."""
        there = [holding for holding in self._held if holding.spans]
        unread, self._unread = self._unread, {}
        for first in range(0, len(there), LOOKED_AT_ONCE):
            batch = there[first : first + LOOKED_AT_ONCE]
            faults, touched = await asyncio.to_thread(_look, batch, unread)
            for number in touched:
                self.on_touched(batch[number])
            for number, fault in faults.items():
                holding = batch[number]
                if holding in self._held and not await self._is_the_same(holding):
                    log.warning("%s is withdrawn: %s: %s", holding.name, holding.place, fault)
                    self._to_tell.append((holding, fault))
                    await self.give_up(holding, fault)
        await self._tell()

    async def _is_the_same(self, holding: Holding) -> bool:
        """Whether files whose numbers alone are others hold what they held; their numbers then count no more."""
        root, manifest = holding.root, self._manifests.get(holding.digest)
        if root is None or manifest is None or not await asyncio.to_thread(renumbered, holding.spans):
            return False
        spans = await asyncio.to_thread(same_files, root, manifest)
        if spans is None or holding not in self._held:
            return False
        log.info("%s: the inode numbers changed, and the content did not", holding.place)
        spans = tuple(FileSpan(s.path, s.size, s.stamp.unnumbered() if s.stamp else None) for s in spans)
        try:
            await self.put([(Holding(holding.record, holding.role, root, spans), manifest)])
        except StorageError as error:
            log.warning("%s is not served any more: %s", holding.place, error)
            return False
        return True

    async def _tell(self) -> None:
        """Call ``on_changed`` for all that was given up. One that fails keeps no other from being told."""
        failed: Exception | None = None
        for pair in list(self._to_tell):
            try:
                await self._on_changed(*pair)
            except Exception as error:  # noqa: BLE001 - raised below, when the others have been told
                failed = error
            else:
                self._to_tell.remove(pair)
        if failed is not None:
            raise failed


def _for_others(holding: Holding, reason: str) -> str:
    """A reason as other nodes are told it: where the files lie here does not concern them."""
    return reason.replace(f"{holding.place}/", "").removeprefix(f"{holding.place}: ")


def _do_all(to_do: Sequence[Callable[[], object]]) -> None:
    """Do each of these, in this order. What the engine does not know any more it need not do: it is being closed."""
    for work in to_do:
        with contextlib.suppress(AddressError):
            work()


def _look(
    holdings: Sequence[Holding], unread: Mapping[str, int] = MappingProxyType({})
) -> tuple[dict[int, str], list[int]]:
    """What is wrong with the files of holdings, by the number of each; and which have files that were touched.

    ``unread`` are paths that could not be read, and where: what still cannot be is at fault, too.
    """
    faults: dict[int, str] = {}
    touched: list[int] = []
    for number, holding in enumerate(holdings):
        fault, was_touched = _look_at(holding, unread)
        if fault:
            faults[number] = fault
        elif was_touched:
            touched.append(number)
    return faults, touched


def _look_at(holding: Holding, unread: Mapping[str, int] = MappingProxyType({})) -> tuple[str, bool]:
    """How a holding's files differ from their stamps, empty when they do not; and whether one was touched."""
    spans = holding.spans
    touched = False
    for number in changed(spans):
        fault, was_touched = look(spans[number])
        if fault:
            return f"{spans[number].path}: {fault}", False
        touched |= was_touched
    if unread:
        for span in spans:
            fault = reading_fault(span.path, unread[span.path]) if span.path in unread else ""
            if fault:
                return f"{span.path}: {fault}", False
    return "", touched
