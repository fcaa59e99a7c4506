"""The get into files: a whole, verified copy at its destination, and this node a source of it from the first chunk."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.files.refusals import said
from engine.memory.file_spans import FileSpan
from p2pstore.errors import DestinationExists, StorageError, UsageError
from p2pstore.holding.catalog import Holding
from p2pstore.holding.parts import Parts
from p2pstore.holding.replica import Replica
from p2pstore.holding.same_content import same_content
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.steps import Steps
from p2pstore.pull.file_destination import FileDestination, tidy
from p2pstore.pull.old_chunks import Places, find_places
from p2pstore.pull.pipeline import End, Pipeline
from p2pstore.pull.reuse import LocalChunks
from p2pstore.pull.run import Emit


@dataclass(frozen=True)
class GetRequest:
    """What is wanted. ``peers`` are control addresses (``host:port``) to ask beside, or instead of, the metadata."""

    name: str
    dest: Path
    transport: str = "auto"
    peers: tuple[str, ...] = ()
    seed: bool = True
    dry_run: bool = False
    force: bool = False


@dataclass
class GetResult:
    """What a get did; sizes in bytes. ``peers`` maps nodes to the verified bytes that each sent."""

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


class FileEnd(End[FileDestination]):
    """Files at a path: served while they come and held once they are whole, unless nothing is to be passed on."""

    def __init__(self, parts: Parts, request: GetRequest) -> None:
        self.seeding = False
        self._parts = parts
        self._request = request
        self._replica: Replica | None = None

    async def is_over(self, get: Pipeline[FileDestination]) -> bool:
        """See ``End.is_over``. Raises ``UsageError`` or ``DestinationExists`` for what a get does not replace."""
        request = self._request
        await asyncio.to_thread(_check_kind, request.dest)
        if await asyncio.to_thread(os.path.lexists, request.dest):
            if await self._is_there(get):
                get.brought.reused = get.manifest.size
                if not request.dry_run:
                    await asyncio.to_thread(tidy, request.dest, get.manifest, request.name)
                return True
            if not request.force:
                raise DestinationExists(path=request.dest)
        if request.dry_run:
            await self._estimate(get)
        return request.dry_run

    async def _is_there(self, get: Pipeline[FileDestination]) -> bool:
        """Whether the destination already is the object; this node then holds it."""
        request, holdings = self._request, self._parts.holdings
        holding = holdings.at(request.dest)
        same = holding is not None and holding.digest == get.manifest.digest
        if same and not await get.in_thread(holdings.fault, holding):
            self.seeding = True
            return True
        get.note(f"{request.dest} exists; comparing it with the object")
        get.steps.begin("comparing", get.manifest.size, "B")
        spans = await get.in_thread(same_content, request.dest, get.manifest, get.cancelled, get.steps.add)
        if spans is None:
            return False
        if not request.dry_run:
            await self.hold(get, spans)
        return True

    async def _estimate(self, get: Pipeline[FileDestination]) -> None:
        """What a get would do now: nothing is written."""
        old = await self.old_chunks(get)

        def here() -> int:
            local = LocalChunks(self._parts.holdings, get.manifest, old)
            return sum(chunk.length for chunk in get.manifest.all_chunks() if local.has(chunk))

        get.brought.reused = await get.in_thread(here)
        get.brought.pulled = get.manifest.size - get.brought.reused
        get.brought.peers = {n: 0 for n, _ in get.resolved.controls}

    def make(self, manifest: Manifest, cancelled: threading.Event, steps: Steps) -> FileDestination:
        """See ``End.make``. Raises as ``FileDestination``."""
        steps.begin("making files")
        request = self._request
        return FileDestination(request.dest, manifest, request.name, force=request.force, cancelled=cancelled)

    def check(self, destination: FileDestination, cancelled: threading.Event, steps: Steps) -> None:
        """See ``End.check``: what an interrupted get left."""
        steps.begin("resuming", unit="B")
        destination.recheck(cancelled, steps.add)

    async def old_chunks(self, get: Pipeline[FileDestination]) -> Places:
        """See ``End.old_chunks``."""
        request = self._request
        if not request.force or not await asyncio.to_thread(os.path.lexists, request.dest):
            return {}
        get.note(f"looking for what of {request.dest} can be reused")
        get.steps.begin("looking for what can be reused")
        return await get.in_thread(find_places, request.dest, get.manifest, get.cancelled)

    async def begin(
        self,
        get: Pipeline[FileDestination],  # noqa: ARG002 - see ``End.begin``
        destination: FileDestination,
    ) -> Callable[[range], None] | None:
        """See ``End.begin``: what is verified is served from now on."""
        if not self._request.seed:
            return None
        self._replica = await self._parts.publisher.serve_partial(destination)
        return self._replica.landed

    def give_up(self, get: Pipeline[FileDestination]) -> None:  # noqa: ARG002 - see ``End.give_up``
        """See ``End.give_up``."""
        if self._replica is not None:
            self._parts.publisher.drop_partial(self._replica)

    async def hold(self, get: Pipeline[FileDestination], spans: Sequence[FileSpan]) -> None:
        """See ``End.hold``."""
        request = self._request
        for text in said.of(str(request.dest)):
            get.note(text)
        if not request.seed:
            return
        holding = Holding(get.resolved.record, "replica", request.dest, spans)
        try:
            await self._parts.publisher.hold(holding, get.manifest, known=get.resolved.watched)
        except StorageError:
            get.note(f"{request.dest} is whole, but is not passed on: get it again when there is room")
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
        str(request.dest),
        get.manifest.size,
        bytes_pulled=get.brought.pulled,
        bytes_reused=get.brought.reused,
        seconds=get.seconds,
        transport=get.brought.transport,
        peers=get.brought.peers,
        seeding=end.seeding,
        dry_run=request.dry_run,
    )


def _check_kind(dest: Path) -> None:
    """Raise ``UsageError`` where a device, pipe or socket stands: a get writes none, and replaces none."""
    try:
        mode = os.lstat(dest).st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        raise UsageError(detail=f"{dest} is a device, a pipe or a socket; a get writes files and directories")
