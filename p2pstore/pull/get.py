"""The get: from a name to a whole, verified copy at its destination, and this node a source of it from the first chunk.

Steps, each of which may end it: find what the name stands for, get the manifest, look at what is at the destination,
check what an interrupted get left, copy what this node has elsewhere, pull the rest, and put it in place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from engine.memory.address_space import FileSpan
from p2pstore.cluster.manifests import first_that_answers
from p2pstore.cluster.records import ReplicaRecord
from p2pstore.errors import DestinationExists, NoLivePeer, UsageError
from p2pstore.holding.catalog import Holding
from p2pstore.holding.parts import Parts
from p2pstore.holding.replica import Replica
from p2pstore.holding.same_content import same_content
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.names import check_object_name
from p2pstore.pull.file_destination import FileDestination, tidy
from p2pstore.pull.old_chunks import Places, find_places
from p2pstore.pull.resolve import Resolved, resolve
from p2pstore.pull.reuse import LocalChunks, copy_local
from p2pstore.pull.run import EVENT_SECONDS, Emit, PullWork

log = logging.getLogger(__name__)

T = TypeVar("T")


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


class Get:
    """One get into the file system."""

    def __init__(self, parts: Parts, request: GetRequest, emit: Emit) -> None:
        """``emit`` takes the events that a user may want to see meanwhile."""
        self._parts = parts
        self._request = request
        self._emit = emit
        self._cancelled = threading.Event()
        self._began = time.monotonic()
        self._done = 0
        self._resolved: Resolved
        self._manifest: Manifest

    async def run(self) -> GetResult:
        """Do it. Cancelling the task stops it cleanly: what is verified stays beside its journal."""
        try:
            return await self._run()
        except asyncio.CancelledError:
            self._cancelled.set()
            raise

    async def _run(self) -> GetResult:
        request, parts = self._request, self._parts
        check_object_name(request.name)
        self._resolved = await resolve(parts.registry, parts.client, request.name, request.peers)
        record = self._resolved.record
        self._manifest = await self._fetch_manifest()
        result = GetResult(request.name, record.manifest, str(request.dest), self._manifest.size)
        result.dry_run = request.dry_run
        await asyncio.to_thread(_check_kind, request.dest)
        if await asyncio.to_thread(os.path.lexists, request.dest):
            if await self._is_there(result):
                if not request.dry_run:
                    await asyncio.to_thread(tidy, request.dest, self._manifest, request.name)
                return self._timed(result)
            if not request.force:
                raise DestinationExists(path=request.dest)
        if request.dry_run:
            return self._timed(await self._estimate(result))
        return self._timed(await self._bring(result))

    def _timed(self, result: GetResult) -> GetResult:
        result.seconds = round(time.monotonic() - self._began, 6)
        return result

    async def _fetch_manifest(self) -> Manifest:
        digest = self._resolved.record.manifest
        known = self._parts.holdings.manifest(digest)
        if known is not None:
            return known
        if not self._resolved.controls:
            raise NoLivePeer(name=self._request.name, detail="nobody who is alive holds it")
        return await first_that_answers(self._parts.client, self._resolved.controls, digest, self._note)

    async def _is_there(self, result: GetResult) -> bool:
        """Whether the destination already is the object; this node then holds it."""
        request, parts = self._request, self._parts
        holding = parts.holdings.at(request.dest)
        if holding is not None and holding.digest == self._manifest.digest and not parts.holdings.fault(holding):
            result.bytes_reused = self._manifest.size
            result.seeding = True
            return True
        self._note(f"{request.dest} exists; comparing it with the object")
        spans = await asyncio.to_thread(same_content, request.dest, self._manifest, self._cancelled)
        if spans is None:
            return False
        result.bytes_reused = self._manifest.size
        if request.seed and not request.dry_run:
            await self._hold(spans)
            result.seeding = True
        return True

    async def _hold(self, spans: tuple[FileSpan, ...]) -> None:
        holding = Holding(self._resolved.record, "replica", self._request.dest, spans)
        await self._parts.publisher.hold(holding, self._manifest, known=self._resolved.watched)

    async def _estimate(self, result: GetResult) -> GetResult:
        """What a get would do now: nothing is written."""
        local = LocalChunks(self._parts.holdings, self._manifest, await self._old())
        result.bytes_reused = sum(c.length for c in self._manifest.all_chunks() if local.has(c))
        result.bytes_pulled = self._manifest.size - result.bytes_reused
        result.peers = {n: 0 for n, _ in self._resolved.controls}
        return result

    async def _bring(self, result: GetResult) -> GetResult:
        request, parts, manifest = self._request, self._parts, self._manifest
        destination = await self._make_destination()
        replica: Replica | None = None
        try:
            with self._progress():
                await self._in_thread(destination.recheck, self._cancelled, self._add)
            old = await self._old()
            with self._progress():
                await self._in_thread(copy_local, parts.holdings, destination, self._cancelled, self._add, old)
            result.bytes_reused = sum(manifest.chunk(c).length for c in destination.verified)
            if request.seed:
                replica = parts.holdings.serve_partial(destination)
                if not destination.verified.full:
                    await parts.publisher.announce(manifest.digest, ReplicaRecord(parts.name, "partial", "replica"))
            if not destination.verified.full:
                await self._pull(destination, replica, result)
            spans = await self._in_thread(destination.finish)
        except BaseException:
            self._cancelled.set()
            try:
                await asyncio.shield(asyncio.to_thread(destination.abort))  # a write may hang
            finally:
                if replica is not None and parts.holdings.drop_partial(replica):
                    parts.publisher.withdraw_later(manifest.digest)
            raise
        if request.seed:
            await self._hold(spans)
            result.seeding = True
        return result

    async def _old(self) -> Places:
        """The object's chunks that lie in what is to be replaced, where something is."""
        if not self._request.force or not await asyncio.to_thread(os.path.lexists, self._request.dest):
            return {}
        self._note(f"looking for what of {self._request.dest} can be reused")
        return await self._in_thread(find_places, self._request.dest, self._manifest, self._cancelled)

    async def _make_destination(self) -> FileDestination:
        made: list[FileDestination] = []

        def make() -> None:
            request = self._request
            made.append(FileDestination(request.dest, self._manifest, request.name, force=request.force))

        try:
            await self._in_thread(make)
        except asyncio.CancelledError:
            for destination in made:
                destination.abort()
            raise
        return made[0]

    async def _in_thread(self, work: Callable[..., T], *args: object) -> T:
        """Run ``work`` in a thread. A cancel waits until it has seen ``_cancelled``: it may hold the destination."""
        running = asyncio.ensure_future(asyncio.to_thread(work, *args))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self._cancelled.set()
            await asyncio.wait({running})
            if not running.cancelled():
                running.exception()  # nobody else asks for it
            raise

    async def _pull(self, destination: FileDestination, replica: Replica | None, result: GetResult) -> None:
        work = PullWork(self._parts, self._resolved, self._request.name, self._request.transport, self._emit)
        on_chunks = replica.landed if replica is not None else _nobody_listens
        await work.run(destination, on_chunks, seeds=replica is not None)
        result.bytes_pulled = work.pull.bytes_pulled
        result.peers = work.pull.bytes_by_node
        result.transport = ",".join(sorted(work.pull.bytes_by_transport))

    def _note(self, text: str) -> None:
        self._emit({"event": "note", "text": text})

    def _add(self, count: int) -> None:
        self._done += count

    @contextlib.contextmanager
    def _progress(self) -> Iterator[None]:
        """Report ``_done`` now and then while something runs in a thread."""
        self._done = 0

        async def report() -> None:
            while True:
                await asyncio.sleep(EVENT_SECONDS)
                self._emit({"event": "progress", "done": self._done, "total": self._manifest.size, "peers": 0})

        task = asyncio.create_task(report())
        try:
            yield
        finally:
            task.cancel()


def _check_kind(dest: Path) -> None:
    """Raise ``UsageError`` where a device, pipe or socket stands: a get writes none, and replaces none."""
    try:
        mode = os.lstat(dest).st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        raise UsageError(detail=f"{dest} is a device, a pipe or a socket; a get writes files and directories")


def _nobody_listens(run: range) -> None:
    """What ``--no-seed`` does with news of verified chunks."""
