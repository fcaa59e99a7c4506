"""The get into files: a whole, verified copy at its destination, and this node a source of it from the first chunk."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.files.refusals import said
from engine.memory.file_spans import FileSpan
from p2pstore.errors import DestinationExists, DestinationServed, StorageError, UsageError
from p2pstore.holding.catalog import Holding
from p2pstore.holding.copy_note import CopyNote, seal
from p2pstore.holding.parts import Parts
from p2pstore.holding.replica import Replica
from p2pstore.holding.same_content import same_content
from p2pstore.objects.chosen import Choice
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.repeats import repeats_of
from p2pstore.objects.steps import Steps
from p2pstore.pull.earlier import cut_alike, differ, version_at
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.old_chunks import Places, find_places
from p2pstore.pull.pipeline import End, Pipeline
from p2pstore.pull.reuse import LocalChunks
from p2pstore.pull.run import Emit
from p2pstore.pull.target import check_contents, examine, resolved, taken
from p2pstore.pull.workplace import tidy
from p2pstore.swarm.gateway import Claim


@dataclass(frozen=True)
class GetRequest:
    """What is wanted. ``peers`` are control addresses (``host:port``) to ask beside, or instead of, the metadata.

    For these ``Node.get`` takes names of nodes, too.
    ``force`` replaces a file, or a directory that is an earlier version of an object; ``wipe`` any directory;
    ``update`` another version of this object, and nothing else.
    ``tensors`` are patterns: then only such tensors of its safetensors files are wanted, and nothing is passed on.
    ``choice`` says which of its files are wanted.
    """

    name: str
    dest: Path
    transport: str = "auto"
    peers: tuple[str, ...] = ()
    seed: bool = True
    dry_run: bool = False
    force: bool = False
    wipe: bool = False
    update: bool = False
    tensors: tuple[str, ...] = ()
    choice: Choice = field(default_factory=Choice)


@dataclass
class GetResult:
    """What a get did; sizes in bytes. ``peers`` maps nodes to the verified bytes that each sent.

    ``tensors`` is their number, where some were asked for, and ``files`` that of the files that were made, where not
    all of the object was: ``size`` is then theirs.
    """

    name: str
    manifest: str
    dest: str
    size: int
    bytes_pulled: int = 0
    bytes_reused: int = 0
    seconds: float = 0.0
    transport: str = ""
    peers: dict[str, int] = field(default_factory=dict)
    seeding: bool = False
    dry_run: bool = False
    tensors: int | None = None
    files: int | None = None
    replaced: str = ""


class FileEnd(End[FileDestination]):
    """Files at a path: served while they come and held once they are whole, unless nothing is to be passed on."""

    def __init__(self, parts: Parts, request: GetRequest) -> None:
        self.seeding = False
        self.dest = request.dest
        """Where it goes: the request's, or where that leads if it is a link."""
        self._parts = parts
        self._request = request
        self.replaced = ""
        self._force = request.force or request.wipe
        self._version: tuple[Holding, Manifest] | None = None  # that an update replaces
        self._replica: Replica | None = None
        self._destination: FileDestination | None = None

    async def is_over(self, get: Pipeline) -> bool:
        """See ``End.is_over``: what cannot go there is found out here, before the first byte.

        Raises ``UsageError`` or ``Refused`` for what a get does not replace, ``StorageError`` or ``PathNotFound``.
        """
        request = self._request
        self.dest = await asyncio.to_thread(resolved, request.dest)
        self._check_home()
        if await asyncio.to_thread(_could_be_it, self.dest) and await self._is_there(get):
            get.brought.reused = get.manifest.size
            if not request.dry_run:
                await asyncio.to_thread(tidy, self.dest, get.manifest.digest)
            return True
        await self._check_target(get, get.manifest)
        if request.dry_run:
            await self._estimate(get)
        return request.dry_run

    async def _check_target(self, get: Pipeline, shape: Manifest) -> None:
        """Whether files of that shape may go there."""
        if self._request.update and await asyncio.to_thread(_could_be_it, self.dest):
            self._version = await version_at(self._parts, self.dest, get)
            if self._version is not None:
                self._force = True
                self.replaced = self._version[0].digest
        try:
            await asyncio.to_thread(examine, self.dest, shape, force=self._force)
        except DestinationExists:
            held = self._parts.holdings.at(self.dest)
            if self._request.update or held is None or held.name != get.resolved.record.name:
                raise
            raise DestinationExists(path=self.dest, version=held.digest[:12]) from None
        await self._check_served(get)
        await asyncio.to_thread(self._check_contents, shape, get.manifest)
        self._note_replaced(get)

    def _check_home(self) -> None:
        """Raise ``UsageError`` for the agent's home, what is in it, and what it is in."""
        options = self._parts.options
        home = options.state
        if home is None:
            return
        if options.local_socket is not None:  # an agent's: its state is a part of its home
            home = home.parent
        if self.dest == home or home in self.dest.parents:
            raise UsageError(detail=f"{self.dest} is in the agent's home, {home}")
        if self.dest in home.parents and self._force:
            raise UsageError(detail=f"the agent's home, {home}, is in {self.dest}")

    async def _check_served(self, get: Pipeline) -> None:
        """Refuse to replace what this node serves under another name; say where something is put among it.

        Raises ``DestinationServed``.
        """
        holdings, dest = self._parts.holdings, self.dest
        there = await asyncio.to_thread(os.path.lexists, dest)
        for above in dest.parents:
            holding = holdings.at(above)
            if holding is None:
                continue
            if there:
                raise DestinationServed(path=dest, root=above, name=holding.name)
            get.note(f"{dest} lies in {above}, which this node serves as {holding.name}: it will be no part of that")
        if not there:
            return
        for holding in holdings:
            root = holding.root
            if root is not None and dest in root.parents:
                raise DestinationServed(path=dest, root=root, name=holding.name)

    def _note_replaced(self, get: Pipeline) -> None:
        here, dest = self._parts.holdings.at(self.dest), self.dest
        if here is not None and here.name != get.resolved.record.name:
            get.note(f"{dest} is replaced, which this node serves as {here.name}: it will do so no more")

    def _check_contents(self, *versions: Manifest) -> None:
        """Raise ``ForeignContent`` for a directory that is none of these, as far as names tell, and none before.

        Unless all in it is to go. Raises ``DestinationExists`` where what an update replaces is no longer what it was.
        """
        if self._request.wipe:
            return
        before: Manifest | None
        if self._version is not None:
            holding, before = self._version
            if self._parts.holdings.fault(holding):
                raise taken(self.dest)
        else:
            held = self._parts.holdings.at(self.dest)
            before = self._parts.holdings.manifest(held.digest) if held is not None else None
        check_contents(self.dest, [*versions, *([before] if before is not None else [])])

    async def _is_there(self, get: Pipeline) -> bool:
        """Whether the destination already is the object; this node then holds it."""
        request, holdings = self._request, self._parts.holdings
        holding = holdings.at(self.dest)
        if holding is not None and not await get.in_thread(holdings.fault, holding):
            if holding.digest == get.manifest.digest:
                holdings.use(get.manifest.digest)
                self.seeding = True
                return True
            theirs = holdings.manifest(holding.digest)
            if theirs is not None and differ(theirs, get.manifest):
                return False
        get.note(f"{self.dest} exists; comparing it with the object")
        get.steps.begin("comparing", get.manifest.size, "B")
        spans = await get.in_thread(same_content, self.dest, get.manifest, get.cancelled, get.steps.add)
        if spans is None:
            return False
        if not request.dry_run:
            await self.hold(get, spans)
        return True

    async def _estimate(self, get: Pipeline) -> None:
        """What a get would do now: nothing is written."""
        old = await self.old_chunks(get)

        def here() -> int:
            local = LocalChunks(self._parts.holdings, get.manifest, old)
            repeats = repeats_of(get.manifest)
            own = {*repeats.zeros, *repeats.firsts}
            return sum(c.length for c in get.manifest.all_chunks() if c.number in own or local.has(c))

        get.brought.reused = await get.in_thread(here)
        get.brought.pulled = get.manifest.size - get.brought.reused
        get.brought.peers = {n: 0 for n, _ in get.resolved.controls}

    def make(self, manifest: Manifest, cancelled: threading.Event, steps: Steps) -> FileDestination:
        """See ``End.make``. Raises as ``FileDestination``."""
        self._destination = FileDestination(
            self.dest,
            manifest,
            self._request.name,
            force=self._force,
            cancelled=cancelled,
            check=lambda: self._check_contents(manifest),
            steps=steps,
        )
        return self._destination

    def check(self, destination: FileDestination, cancelled: threading.Event) -> None:
        """See ``End.check``: what an interrupted get left."""
        destination.recheck(cancelled)

    async def old_chunks(self, get: Pipeline) -> Places:
        """See ``End.old_chunks``: in what is replaced, and in what gets that may still be at work left beside it."""
        found: Places = {}
        for root in [*(self._destination.others if self._destination else ()), self.dest]:
            if root == self.dest and await cut_alike(self._parts.holdings, root, get.manifest):
                continue  # it is found among what this node serves
            if await asyncio.to_thread(_could_be_it, root):
                get.steps.begin("looking for what can be reused")
                get.note(f"looking for what of {root} can be reused")
                found.update(await get.in_thread(find_places, root, get.manifest, get.cancelled))
        return found

    async def begin(
        self,
        get: Pipeline,
        destination: FileDestination,
    ) -> Callable[[range], None] | None:
        """See ``End.begin``: what is verified is served from now on."""
        if not self._request.seed:
            return None
        self._replica = await self._parts.publisher.serve_partial(destination, get.resolved.record)
        return self._replica.landed

    def claims(self, claim: Claim) -> None:
        """See ``End.claims``."""
        if self._replica is not None:
            self._replica.claims(claim)

    def give_up(self, get: Pipeline) -> None:
        """See ``End.give_up``."""
        if self._replica is not None:
            self._parts.publisher.drop_partial(self._replica, get.resolved.record)

    async def hold(self, get: Pipeline, spans: Sequence[FileSpan]) -> None:
        """See ``End.hold``."""
        request = self._request
        for text in said.of(str(self.dest)):
            get.note(text)
        if not request.seed:
            return
        note = CopyNote()
        if self._destination is not None:  # what was there already, somebody else wrote
            note.wrote, note.real = seal(spans), await asyncio.to_thread(os.path.realpath, self.dest)
            note.own_root = self._destination.made_root
        holding = Holding(get.resolved.record, "replica", self.dest, spans, note=note)
        try:
            await self._parts.publisher.hold(holding, get.manifest, known=get.resolved.watched)
        except StorageError:
            get.note(f"{self.dest} is whole, but is not passed on: get it again when there is room")
            raise
        self.seeding = True


async def get_files(parts: Parts, request: GetRequest, emit: Emit) -> GetResult:
    """Bring an object to a path. Cancelling the task stops it cleanly: what is verified stays beside its journal.

    ``emit`` takes the events that a user may want to see meanwhile. Raises as ``Pipeline.run`` and ``FileEnd``.
    """
    end = FileEnd(parts, request)
    get = Pipeline(parts, end, request.name, transport=request.transport, peers=request.peers, emit=emit)
    await get.run()
    return GetResult(
        request.name,
        get.manifest.digest,
        str(end.dest),
        get.manifest.size,
        bytes_pulled=get.brought.pulled,
        bytes_reused=get.brought.reused,
        seconds=get.seconds,
        transport=get.brought.transport,
        peers=get.brought.peers,
        seeding=end.seeding,
        dry_run=request.dry_run,
        replaced=end.replaced,
    )


def _could_be_it(path: Path) -> bool:
    """Whether something is at ``path`` that may be the object, or have some of it: a file, or a directory with any."""
    try:
        return path.is_file() or (path.is_dir() and any(path.iterdir()))
    except OSError:
        return False
