"""The holdings of a running node: each served through the engine, and remembered in the catalog.

All methods but those that say otherwise run on the event loop's thread, the only writer. What takes long with many
files (the catalog, the engine, a look at the files) runs in threads. Changes are made one after the other, and each to
its end: what is in the catalog is what is held.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from engine.errors import StorageError
from engine.memory.buffers import Buffer
from engine.serving.segment_server import SegmentServer
from p2pstore.holding.catalog import Catalog, Holding
from p2pstore.holding.expected import Expected
from p2pstore.holding.index import Index
from p2pstore.holding.looks import Suspects, look_at, look_at_each
from p2pstore.holding.replica import Replica
from p2pstore.holding.same_content import same_files
from p2pstore.holding.serving import Serving
from p2pstore.objects.bitmap import Bitmap
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.memory_objects import release
from p2pstore.objects.waiting import to_its_end

log = logging.getLogger(__name__)


class PartialCopy(Protocol):
    """What a get has of an object so far, in its partial form."""

    manifest: Manifest
    verified: Bitmap

    def partial_buffer(self, servable: Callable[[int, int], bool]) -> Buffer:
        """The buffer by which peers may read the ranges that ``servable(offset, length)`` allows."""


class Holdings:
    """What this node holds whole, and the replicas (whole or partial) that it serves, by manifest digest."""

    def __init__(self, engine: SegmentServer, catalog: Catalog) -> None:
        self.expected = Expected()
        self.suspects = Suspects()
        self.serving = Serving(engine, self.suspects)
        self.replicas = self.serving.replicas
        self._catalog = catalog
        self._loop = asyncio.get_running_loop()
        self._held = Index()
        self._manifests: dict[str, Manifest] = {}
        self._changing = asyncio.Lock()
        self._to_note: dict[tuple[str, str], Holding] = {}  # the catalog does not know when these were used last
        self.given_up = 0
        """Holdings that had to be given up, since their files changed or their bytes were wrong."""
        self._to_forget: list[Holding] = []  # given up, and still in the catalog: it had no room

    def __iter__(self) -> Iterator[Holding]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def close(self) -> None:
        """Serve nothing any more, and give memory back to those who lent it: the node ends, and the engine with it.

        A get that still runs finds that what it brought is not served.
        """
        self.serving.close()
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

    def __contains__(self, holding: Holding) -> bool:
        """Whether this very holding is held, not one that took its place."""
        return holding in self._held

    def manifest(self, digest: str) -> Manifest | None:
        """The manifest of something that is held or being pulled."""
        replica = self.replicas.get(digest)
        return self._manifests.get(digest) or (replica.manifest if replica else None)

    def fault(self, holding: Holding) -> str:
        """How a holding's files differ from their stamps, in a few words; empty when they do not. Any thread."""
        return look_at(holding)[0]

    async def restore(self) -> list[Holding]:
        """Serve again what the catalog says; give up, with a line in the log, what is no longer what it was.

        A file whose stamp differs is hashed again: it may have been copied or touched. Returns what was given up.
        """
        lost = []
        known = await asyncio.to_thread(lambda: list(self._catalog.load()))
        faults, _ = await asyncio.to_thread(look_at_each, [holding for holding, _ in known])
        for number, (holding, manifest) in enumerate(known):
            fault = faults.get(number, "")
            if fault and holding.root is not None:
                spans = await asyncio.to_thread(same_files, holding.root, manifest)
                if spans is None:
                    log.warning("%s is no longer served: %s: %s", holding.name, holding.place, fault)
                    await self._forget(holding)
                    lost.append(holding)
                    continue
                holding = replace(holding, spans=spans)  # noqa: PLW2901 - its new stamps
                try:
                    await self._remember([(holding, manifest)], ())
                except StorageError as error:
                    log.warning("%s is hashed again at the next start, too: %s", holding.place, error)
            self._hold(holding, manifest, await asyncio.to_thread(self.serving.buffer, holding, manifest))
        return lost

    async def add(self, holding: Holding, manifest: Manifest) -> Replica:
        """As ``put``, for one; the replica by which it is served."""
        await self.put([(holding, manifest)])
        return self.replicas[manifest.digest]

    async def put(
        self,
        new: Sequence[tuple[Holding, Manifest]],
        *,
        whole_name: bool = False,
        but: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> list[Holding]:
        """Hold, serve and remember these. Returns what is held no more instead.

        That is what lay at their places, and with ``whole_name`` also what other content is under their names, wherever
        it lies, ``but`` for some digests of a name. Raises ``StorageError`` when the catalog cannot be written: all is
        then as it was.
        """
        return await to_its_end(self._put(new, whole_name=whole_name, but=but))

    async def _put(
        self, new: Sequence[tuple[Holding, Manifest]], *, whole_name: bool, but: Mapping[str, Collection[str]]
    ) -> list[Holding]:
        async with self._changing:
            displaced: dict[int, Holding] = {}
            for holding, manifest in new:
                others = self.displaced_by(holding)
                if whole_name:
                    kept = {manifest.digest, *but.get(holding.name, ())}
                    others += [other for other in self.named(holding.name) if other.digest not in kept]
                displaced.update((id(other), other) for other in others)
            gone = list(displaced.values())
            for holding, _ in new:
                self._begin_note(holding)
            await self._remember(new, gone)
            buffers = await asyncio.to_thread(lambda: [self.serving.buffer(*pair) for pair in new])
            await self._let_go(gone)
            for (holding, manifest), buffer in zip(new, buffers, strict=True):
                self._hold(holding, manifest, buffer)
            await self.serving.catch_up()
            return gone

    def _begin_note(self, holding: Holding) -> None:
        """It is to be held: take over what is noted of the same at its place, or begin."""
        old = self._held.at_place_of(holding)
        if old is not None and old.digest == holding.digest and old.note is not holding.note:
            holding.note.inherit(old.note)
        holding.note.since = holding.note.since or time.time()

    def use(self, digest: str) -> None:
        """A peer, or a get of this node, uses that content now. Any thread."""
        self._loop.call_soon_threadsafe(self._use, digest)

    def _use(self, digest: str) -> None:
        for holding in self.of(digest):
            holding.note.used = time.time()
            if holding.root is not None:
                self._to_note[holding.name, holding.place] = holding

    async def pin(self, holding: Holding, *, pinned: bool) -> None:
        """Whether a copy is to stay, whatever is cleared away. Raises ``StorageError``; it is then as it was."""
        await to_its_end(self._pin(holding, pinned=pinned))

    async def _pin(self, holding: Holding, *, pinned: bool) -> None:
        async with self._changing:
            before, holding.note.pinned = holding.note.pinned, pinned
            try:
                await asyncio.to_thread(self._catalog.note, [holding] if holding.root is not None else [])
            except BaseException:
                holding.note.pinned = before
                raise

    async def save_notes(self) -> None:
        """Have the catalog know when copies were used last. One that has no room for that is told later."""
        await to_its_end(self._save_notes())

    async def _save_notes(self) -> None:
        async with self._changing:
            used, self._to_note = self._to_note, {}
            there = [holding for holding in used.values() if holding in self._held]
            if not there:
                return
            try:
                await asyncio.to_thread(self._catalog.note, there)
            except StorageError as error:
                log.debug("%s", error)
                self._to_note = {**used, **self._to_note}

    async def _remember(self, new: Iterable[tuple[Holding, Manifest]], gone: Iterable[Holding]) -> None:
        """Write to the catalog what of these lies in files. Raises ``StorageError``."""
        in_files = [pair for pair in new if pair[0].root is not None]
        forgotten = [holding for holding in gone if holding.root is not None]
        if in_files or forgotten:
            await asyncio.to_thread(self._catalog.change, in_files, forgotten)

    def _hold(self, holding: Holding, manifest: Manifest, buffer: Buffer | None) -> None:
        self._held.add(holding)
        self._manifests[manifest.digest] = manifest
        self.serving.serve(holding, manifest, buffer)

    async def serve_partial(self, destination: PartialCopy) -> Replica:
        """Serve what a get has verified so far, unless this node already serves the object."""
        return await to_its_end(self._serve_partial(destination))

    async def _serve_partial(self, destination: PartialCopy) -> Replica:
        manifest = destination.manifest
        replica = Replica(manifest, destination.verified, "replica", self._loop)
        async with self._changing:
            if manifest.size and manifest.digest not in self.replicas:
                buffer = await asyncio.to_thread(destination.partial_buffer, replica.servable)
                self.serving.serve_partial(replica, buffer)
        return replica

    def drop_partial(self, replica: Replica) -> bool:
        """A get ended before it was whole. Returns whether its replica was served; if so, ``catch_up`` is called."""
        return self.serving.drop_partial(replica)

    async def remove(self, holding: Holding) -> bool:
        """As ``remove_all``, for one. Returns whether the node still serves the content, from another holding."""
        await self.remove_all([holding])
        return self.serving.served(holding.digest) is not None

    async def remove_all(self, holdings: Sequence[Holding]) -> None:
        """Hold these no more. Raises ``StorageError`` when the catalog cannot be written; all are then as before."""
        await to_its_end(self._remove_all(holdings))

    async def _remove_all(self, holdings: Sequence[Holding]) -> None:
        async with self._changing:
            there = [holding for holding in holdings if holding in self._held]
            await self._remember((), there)
            await self._let_go(there)
            await self.serving.catch_up()

    async def give_up(self, holding: Holding, reason: str = "") -> None:
        """As ``remove``, for what must not be served any longer: it is forgotten when the catalog can be written.

        ``reason`` is told to those who get it just now.
        """
        await to_its_end(self._give_up(holding, reason))

    async def _give_up(self, holding: Holding, reason: str) -> None:
        async with self._changing:
            if holding not in self._held:
                return  # it went a moment ago, or something took its place
            self.given_up += 1
            await self._let_go([holding], _for_others(holding, reason))
            await self.serving.catch_up()
            await self._forget(holding)

    async def _forget(self, holding: Holding) -> None:
        """Remove from the catalog what is held no more; later, when it has no room for that."""
        try:
            await self._remember((), [holding])
        except StorageError as error:
            log.warning("%s is served no more; the catalog will forget it later: %s", holding.place, error)
            self._to_forget.append(holding)

    async def forget_again(self) -> None:
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
            if self.serving.served(digest) is not holding:
                continue
            others = self.of(digest)
            if others:
                manifest = self._manifests[digest]
                buffer = await asyncio.to_thread(self.serving.buffer, others[0], manifest)
                self.serving.vacate(digest)
                self._hold(others[0], manifest, buffer)
            else:
                self.serving.unserve(digest, reason)
                self._manifests.pop(digest, None)

    async def catch_up(self) -> None:
        """Have the engine do what it still has to, and wait for that."""
        async with self._changing:
            await self.serving.catch_up()


def _for_others(holding: Holding, reason: str) -> str:
    """A reason as other nodes are told it: where the files lie here does not concern them."""
    return reason.replace(f"{holding.place}/", "").removeprefix(f"{holding.place}: ")
