"""One file of an origin, brought here: its sections from whoever has them, and those that nobody has from the origin.

A node *claims* a section that nobody has, reads it, and registers it: from then on the others get it from this node,
and from each other. What has come is held like any object, so that a node that was killed goes on from there, and a
claim ends with its node's lease, so that others read what a dead one was reading. Of all sections the whole file is
made, which is compared with the hashes that the origin told; then the sections are deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

from p2pstore.cluster.claims import claimant
from p2pstore.errors import (
    HubNotRead,
    MetadataUnavailable,
    MooncakeError,
    NoLivePeer,
    OriginChanged,
    OriginDiffers,
    RemoteError,
    StorageError,
)
from p2pstore.holding.catalog import Holding
from p2pstore.holding.copy_note import CopyNote, seal
from p2pstore.holding.deletion import NotTheSame, delete
from p2pstore.holding.incoming import Incoming, begun
from p2pstore.holding.parts import Parts
from p2pstore.holding.register import register_incoming
from p2pstore.hub.hub import Hub
from p2pstore.hub.repos import Repo, RepoNotFound
from p2pstore.objects.choices import DEFAULT_HASH
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.steps import Steps
from p2pstore.objects.waiting import to_its_end
from p2pstore.origins import patient
from p2pstore.origins.coming import Coming, Room
from p2pstore.origins.file_work import FileWork, Told, Wanting
from p2pstore.origins.joining import append, opened
from p2pstore.origins.patient import PatientReading, Stalled
from p2pstore.origins.proof import Proof
from p2pstore.origins.sections import Plan, Section, order, plan
from p2pstore.origins.source import OriginFile, Source

log = logging.getLogger(__name__)

READS_AT_ONCE = 4
"""Sections that this node reads from origins at a time."""

WORKERS = 6
"""Of a file: sections that come at a time, from the origin or from peers."""

LOOK_SECONDS = 0.5
"""Before a section is looked at again that another node is reading."""

LOOKS_OF_OTHERS = 4
"""For so many looks a section that stalled is left alone by the node at which it did."""

PASSING = (RemoteError, NoLivePeer, MetadataUnavailable)
"""Faults of others that may be over soon."""

WATCH_SECONDS = 1.0
"""Between two looks whether something comes."""


class Gathering:
    """What of origins this node brings. On the event loop."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._parts: Parts = hub.parts
        self._claims = hub.claims
        self._copies = hub.copies
        self._repos = hub.repos
        self._reads = Room(READS_AT_ONCE)
        self._works: dict[str, FileWork] = {}

    async def have(self, source: Source, origin: str, file: OriginFile, steps: Steps) -> Path:
        """Where a file that is not empty lies here, whole and right. ``steps`` counts its bytes.

        Who wants the same meanwhile waits for the same work, which ends when all are cancelled. Raises
        ``OriginUnavailable``, ``OriginNotFound``, ``OriginRefused``, ``OriginChanged``, ``OriginDiffers``,
        ``StorageError``, and as a get. What came until then stays for the next time, unless the origin changed.
        """
        way, wanting = plan(file), Wanting(source, origin, file, Told(steps, file.size))
        while True:
            one = self._works.get(way.whole)
            if one is None:
                one = self._works[way.whole] = FileWork(wanting, way, self._bring)
                one.task.add_done_callback(lambda _: self._ended(way.whole))
            elif one.ending or one.task.done():
                await asyncio.wait({one.task})
                await asyncio.sleep(0)  # it is forgotten then
                continue
            else:
                one.join(wanting)
            found = await one.wait(wanting)
            if found is not None:
                return found

    def _ended(self, whole: str) -> None:
        self._works.pop(whole).coming.news()

    def coming(self, name: str) -> Coming | None:
        """What is here of a file that is being brought, and that will be called so."""
        one = self._works.get(name)
        return one.coming if one is not None else None

    def held(self, name: str, digest: str = "") -> tuple[Path, Manifest] | None:
        """Where an object of one file lies that this node has, all of it, and its manifest.

        Under another name, perhaps, where its ``digest`` is known.
        """
        holding = self._holding(name)
        if holding is None:
            holding = next((each for each in self._parts.holdings.of(digest) if each.spans), None)
        manifest = self._parts.holdings.manifest(holding.digest) if holding is not None else None
        return (Path(holding.spans[0].path), manifest) if holding is not None and manifest is not None else None

    async def _bring(self, one: FileWork) -> Path:
        try:
            return await self._have(one)
        except OriginChanged:
            await self._clear(one.plan, older=True)
            raise

    async def _have(self, one: FileWork) -> Path:
        while True:
            try:
                found = await self._found(one.plan.whole)
                if found is not None:
                    path = await self._copies.of(found.record, found.manifest).held(one.came)
                    await self._clear(one.plan)
                    return path
            except PASSING as error:
                await one.again(error)
                continue
            if await self._gather(one) and one.plan.cut:
                await self._join(one)

    async def _found(self, name: str) -> Repo | None:
        """An object that somebody has. Raises ``RemoteError`` where who had it does not answer well."""
        try:
            return await self._repos.find(name, "main")
        except (RepoNotFound, NoLivePeer):
            return None

    # The sections

    async def _gather(self, one: FileWork) -> bool:
        """Have all sections here; False where somebody has the whole file before."""
        waiting = deque(order(self._parts.registry.node, one.plan.sections))
        looking = asyncio.create_task(self._appears(one), name=f"whether others have {one.origin}")
        watching = asyncio.create_task(self._watch(one), name=f"whether {one.origin} sends")
        name = f"bringing of {one.origin}"
        workers = [asyncio.create_task(self._work(one, waiting), name=name) for _ in range(WORKERS)]
        working = asyncio.gather(*workers)
        try:
            either: set[asyncio.Future[Any]] = {looking, watching, working}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            if not working.done():
                looking.result()
                return False
            working.result()
            return True
        finally:
            for task in (looking, watching, *workers):
                task.cancel()
            await asyncio.gather(looking, watching, working, *workers, return_exceptions=True)

    async def _work(self, one: FileWork, waiting: deque[Section]) -> None:
        """Have those that wait, one after the other."""
        while waiting:
            section = one.coming.next(waiting)
            try:
                had = await self._obtain(one, section)
            except PASSING as error:
                waiting.append(section)
                await one.again(error)
                continue
            except Stalled as stalled:
                if one.quiet.seconds > patient.PATIENCE_SECONDS:
                    raise stalled.fault from None
                await asyncio.sleep(LOOKS_OF_OTHERS * LOOK_SECONDS)  # others may claim it first
                waiting.append(section)
                continue
            one.peers.well()
            if not had:
                one.quiet.others()
                one.coming.elsewhere = asyncio.get_running_loop().time()
                await asyncio.sleep(LOOK_SECONDS)
                waiting.append(section)  # not before, or each of us would look at the same one

    async def _appears(self, one: FileWork) -> None:
        """Who has the whole gives up its sections: whoever still gets those would wait in vain."""
        found = False
        while not found:
            await asyncio.sleep(LOOK_SECONDS)
            with contextlib.suppress(*PASSING):
                found = await self._found(one.plan.whole) is not None

    async def _watch(self, one: FileWork) -> None:
        """Tell whoever waits where nothing comes."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            text = one.quiet.words()
            if text:
                one.note(text)

    async def _obtain(self, one: FileWork, section: Section) -> bool:
        """Have a section here; False where that is not possible now, since another node reads it."""
        found = await self._found(section.name)
        if found is not None:
            await self._copies.of(found.record, found.manifest).held(one.came)
            one.coming.digests[section.name] = found.manifest.digest
            return True
        if not one.source.reads:
            return await self._read_elsewhere(one, section)
        async with self._reads.place(lambda: one.coming.is_urgent(section)):
            claiming = asyncio.ensure_future(self._claims.claim(section.name))
            try:
                if not await to_its_end(claiming):
                    return False
                if await self._found(section.name) or (one.plan.cut and await self._found(one.plan.whole)):
                    return False  # somebody was just through with it
                await self._read(one, section)
            finally:
                if claiming.exception() is None and claiming.result():
                    await to_its_end(self._claims.give_back(section.name))
        return True

    async def _read_elsewhere(self, one: FileWork, section: Section) -> bool:
        """False: another node reads a section that this one may not. Raises ``HubNotRead`` where none does."""
        if await claimant(self._parts.registry, section.name):
            return False
        raise HubNotRead(file=one.file.path)  # of all origins only a hub has to be allowed by a setting

    async def _read(self, one: FileWork, section: Section) -> None:
        """Read a section from the origin, and have the cluster know it."""
        incoming = await self._incoming(section.name, one.plan.chunk_size)
        proof = Proof(one.file) if not one.plan.cut else None
        with contextlib.ExitStack() as stack:
            try:
                descriptor = opened(incoming.path)
                stack.callback(os.close, descriptor)
                grew = stack.enter_context(one.coming.growing(section, descriptor))
                await self._stream(one, section, incoming, proof, grew)
                if proof is not None:
                    await self._check(one, proof)
            except BaseException:
                await to_its_end(asyncio.to_thread(incoming.abort))
                raise
            await register_incoming(self._parts, incoming, section.name, force=True, steps=Steps())

    async def _stream(
        self, one: FileWork, section: Section, incoming: Incoming, proof: Proof | None, grew: Callable[[int], None]
    ) -> None:
        def take(block: bytes) -> None:
            incoming.write(block)
            if proof is not None:
                proof.update(block)

        def blocks(begin: int) -> AsyncGenerator[bytes, None]:
            return one.source.stream(one.file, begin, section.end)

        async def taken(block: bytes) -> None:
            await to_its_end(asyncio.to_thread(take, block))
            one.came(len(block))
            grew(len(block))

        reading = PatientReading(one.origin, blocks, taken, one.quiet)
        with one.quiet.reading():
            await reading.run(section.begin, section.end, resumes=one.file.resumes, alone=not one.plan.cut)

    # The whole

    async def _join(self, one: FileWork) -> None:
        """Make the whole file of sections that are here, and have the cluster know it."""
        held = [self.held(section.name, one.coming.digests.get(section.name, "")) for section in one.plan.sections]
        if any(each is None for each in held):
            return  # one was withdrawn meanwhile: it is looked for again
        incoming = await self._incoming(one.plan.whole, one.plan.chunk_size)
        proof = Proof(one.file)
        try:
            for each in held:
                assert each is not None  # noqa: S101 - it was looked at
                await to_its_end(asyncio.to_thread(append, incoming, *each, proof))
            await self._check(one, proof)
        except BaseException as error:
            await to_its_end(asyncio.to_thread(incoming.abort))
            if isinstance(error, OriginDiffers):  # nobody knows which of them is wrong
                await self._clear(one.plan)
            raise
        await register_incoming(self._parts, incoming, one.plan.whole, force=True, steps=Steps())

    async def _check(self, one: FileWork, proof: Proof) -> None:
        """All of a file has come. Raises ``OriginDiffers``, and as ``Source.sure``."""
        try:
            proof.check(one.origin)
        except OriginDiffers as error:
            if await one.source.sure(one.file):
                raise
            log.info("%s, which was uploaded in parts of several sizes: it is not compared", error)

    def _holding(self, name: str) -> Holding | None:
        return next((holding for holding in self._parts.holdings.named(name) if holding.spans), None)

    async def _clear(self, way: Plan, *, older: bool = False) -> None:
        """Delete what sections of a file are here, and with ``older`` of all of its versions."""
        names = {section.name for section in way.sections} if way.cut else set()
        if older:
            names |= {each.name for each in self._parts.holdings if each.name.startswith(way.above)}
            names = {name for name in names if not name.endswith("/whole")}
        for holding in [each for name in names for each in self._parts.holdings.named(name)]:
            try:
                await self._parts.publisher.withdraw([holding])
                await to_its_end(asyncio.to_thread(_delete, holding))
            except (MooncakeError, NotTheSame) as error:
                log.info("%s stays: %s", holding.place, error)

    async def _incoming(self, name: str, chunk_size: int) -> Incoming:
        kept = self._parts.options.kept
        if kept is None:
            raise StorageError(path="this node", detail="it has no directory to keep what it brings")
        return await begun(Incoming, kept, name, DEFAULT_HASH, chunk_size)


def _delete(holding: Holding) -> None:
    """Delete a section's file, if it is as it was when it was held."""
    root = holding.root
    if root is not None:
        delete(root, holding.spans, (), CopyNote(wrote=seal(holding.spans), real=os.path.realpath(root)))
