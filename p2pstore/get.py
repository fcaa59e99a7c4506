"""The get: from a name to a whole, verified copy at its destination, and this node a source of it from the first chunk.

Steps, each of which may end it: find what the name stands for, get the manifest, look at what is at the destination,
check what an interrupted get left, copy what this node has elsewhere, pull the rest, and put it in place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import MooncakeError, TransportUnavailable
from engine.transports.base import PeerAddress
from p2pstore.catalog import Holding
from p2pstore.destination import FileDestination, Mismatch, same_content
from p2pstore.discovery import Discovery, first_that_answers
from p2pstore.errors import (
    ChunkMismatch,
    DestinationExists,
    Interrupted,
    MetadataRefused,
    MetadataUnavailable,
    NoLivePeer,
    ObjectNotFound,
    RemoteError,
    SecretRefused,
)
from p2pstore.manifest import Chunk, Manifest
from p2pstore.names import check_object_name
from p2pstore.pull import SCRATCH_BYTES, Pull
from p2pstore.records import ObjectRecord, ReplicaRecord
from p2pstore.replica import Replica
from p2pstore.reuse import LocalChunks

if TYPE_CHECKING:
    from p2pstore.memory_destination import MemoryDestination
    from p2pstore.node import Node

log = logging.getLogger(__name__)

EVENT_SECONDS = 0.2
"""Between progress events; also how often the planner is told the time."""

NO_SOURCE_SECONDS = 10.0
"""How long a get waits for a source of what is missing: longer than an agent takes to start again."""

NO_HOLDER_SECONDS = 3.0
"""And how long when nobody at all is listed as holding the object."""

TRANSPORTS = {"auto": ("local", "tcp"), "tcp": ("tcp",), "local": ("local",)}
"""What each choice of transport tries, the best first."""

Emit = Callable[[dict[str, Any]], None]
"""Takes ``progress`` and ``note`` events, on the event loop's thread."""


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


@dataclass(frozen=True)
class Resolved:
    """What a name stands for, and whom to ask: ``controls`` are (node, control address), ``watched`` the metadata."""

    record: ObjectRecord
    controls: tuple[tuple[str, str], ...]
    watched: bool


async def resolve(node: Node, name: str, peers: Sequence[str]) -> Resolved:
    """Find a name in the metadata store, or at the given peers.

    Raises ``ObjectNotFound``, ``MetadataUnavailable`` (and no peer given), or the fault of the last peer asked.
    """
    unavailable: MooncakeError | None = None
    record: ObjectRecord | None = None
    controls: list[tuple[str, str]] = []
    try:
        record = await node.registry.find(name)
        if record is not None:
            holders = await node.registry.replicas(record.manifest)
            complete_first = sorted(holders, key=lambda n: (holders[n].state != "complete", n))
            found = await node.registry.nodes([n for n in complete_first if n != node.name])
            controls = [(n, r.control) for n, r in found.items()]
    except (MetadataUnavailable, MetadataRefused) as error:
        if not peers:
            raise
        unavailable = error
    watched = record is not None
    fault: MooncakeError | None = None
    for peer in peers:
        try:
            theirs = await node.client.name(peer, name)
        except (RemoteError, SecretRefused) as error:
            fault = error
            continue
        if record is None:
            record = theirs
        if record.manifest == theirs.manifest:
            controls.insert(0, (peer, peer))
    if record is None:
        raise _unresolved(name, peers, fault, unavailable)
    return Resolved(record, tuple(controls), watched)


def _unresolved(
    name: str, peers: Sequence[str], fault: MooncakeError | None, unavailable: MooncakeError | None
) -> MooncakeError:
    if not peers or (fault is not None and type(fault).__name__ == "PeerHasNot"):
        return ObjectNotFound(name=name)
    return fault or unavailable or ObjectNotFound(name=name)


class Get:
    """One get into the file system."""

    def __init__(self, node: Node, request: GetRequest, emit: Emit) -> None:
        """``emit`` takes the events that a user may want to see meanwhile."""
        self._node = node
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
        request, node = self._request, self._node
        check_object_name(request.name)
        self._resolved = await resolve(node, request.name, request.peers)
        record = self._resolved.record
        self._manifest = await self._fetch_manifest()
        result = GetResult(request.name, record.manifest, str(request.dest), self._manifest.size)
        result.dry_run = request.dry_run
        if await asyncio.to_thread(os.path.lexists, request.dest):
            if await self._is_there(result):
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
        known = self._node.holdings.manifest(digest)
        if known is not None:
            return known
        if not self._resolved.controls:
            raise NoLivePeer(name=self._request.name, detail="nobody who is alive holds it")
        return await first_that_answers(self._node.client, self._resolved.controls, digest, self._note)

    async def _is_there(self, result: GetResult) -> bool:
        """Whether the destination already is the object; this node then holds it."""
        request, node = self._request, self._node
        holding = node.holdings.at(request.dest)
        if holding is not None and holding.digest == self._manifest.digest and not node.holdings.fault(holding):
            result.bytes_reused = self._manifest.size
            result.seeding = True
            return True
        self._note(f"{request.dest} exists; comparing it with the object")
        spans = await asyncio.to_thread(same_content, request.dest, self._manifest, self._cancelled)
        if spans is None:
            return False
        result.bytes_reused = self._manifest.size
        if request.seed and not request.dry_run:
            await node.hold(Holding(self._resolved.record, "replica", request.dest, spans), self._manifest)
            result.seeding = True
        return True

    async def _estimate(self, result: GetResult) -> GetResult:
        """What a get would do now: nothing is written."""
        local = LocalChunks(self._node.holdings, self._manifest)
        result.bytes_reused = sum(c.length for c in self._manifest.all_chunks() if local.has(c))
        result.bytes_pulled = self._manifest.size - result.bytes_reused
        result.peers = {n: 0 for n, _ in self._resolved.controls}
        return result

    async def _bring(self, result: GetResult) -> GetResult:
        request, node, manifest = self._request, self._node, self._manifest
        destination = await asyncio.to_thread(
            FileDestination, request.dest, manifest, request.name, force=request.force
        )
        replica: Replica | None = None
        try:
            with self._progress():
                await asyncio.to_thread(destination.recheck, self._cancelled, self._add)
            with self._progress():
                await asyncio.to_thread(self._reuse, destination)
            result.bytes_reused = sum(manifest.chunk(c).length for c in destination.verified)
            if request.seed:
                replica = node.holdings.serve_partial(destination)
                if not destination.verified.full:
                    await self._announce("partial")
            if not destination.verified.full:
                await self._pull(destination, replica, result)
            spans = await asyncio.to_thread(destination.finish)
        except BaseException:
            self._cancelled.set()
            destination.close()
            if replica is not None and node.holdings.drop_partial(replica):
                node.spawn(node.withdraw_quietly(manifest.digest))
            raise
        if request.seed:
            await node.hold(Holding(self._resolved.record, "replica", request.dest, spans), manifest)
            result.seeding = True
        return result

    async def _announce(self, state: str) -> None:
        """Say that this node has a part. A get goes on without the metadata server; the rejoin says it again."""
        replica = ReplicaRecord(self._node.name, state, "replica")
        try:
            await self._node.registry.announce(self._manifest.digest, replica)
        except MooncakeError as error:
            log.warning("%s", error)

    def _reuse(self, destination: FileDestination) -> None:
        """Copy, and verify, what this node has of the object in other places. In a thread."""
        local = LocalChunks(self._node.holdings, self._manifest)
        scratch = memoryview(bytearray(SCRATCH_BYTES))
        for number in list(destination.verified.missing()) if local else []:
            if self._cancelled.is_set():
                raise Interrupted(detail="copying what is here was cancelled")
            chunk = self._manifest.chunk(number)
            if local.has(chunk) and _copy(local, chunk, destination, scratch):
                destination.verified.add(number)
                destination.keep(range(number, number + 1))
                self._add(chunk.length)

    async def _pull(self, destination: FileDestination, replica: Replica | None, result: GetResult) -> None:
        work = PullWork(self._node, self._resolved, self._request.name, self._request.transport, self._emit)
        on_chunks = replica.landed if replica is not None else _nobody_listens
        await work.run(destination, on_chunks)
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


class PullWork:
    """Discovery and pull together, until every chunk is there or no hope is left."""

    def __init__(self, node: Node, resolved: Resolved, name: str, transport: str, emit: Emit) -> None:
        self.pull: Pull
        self._node = node
        self._resolved = resolved
        self._name = name
        self._transport = transport
        self._emit = emit
        self._unusable = ""

    async def run(self, destination: FileDestination | MemoryDestination, on_chunks: Callable[[range], None]) -> None:
        """Raises ``NoLivePeer``, ``ChunkMismatch``, ``TransportUnavailable`` or what went wrong at the destination."""
        node, resolved = self._node, self._resolved
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        discovery: Discovery

        def note(text: str) -> None:
            loop.call_soon_threadsafe(self._emit, {"event": "note", "text": text})

        def ended() -> None:
            loop.call_soon_threadsafe(over.set)

        def dropped(source: str, banned: bool) -> None:  # noqa: FBT001 - the pull's callback
            discovery.dropped(source, banned)

        self.pull = Pull(
            destination,
            destination.verified,
            open_channel=node.engine.open,
            connections=node.connections,
            on_progress=ended,
            on_chunks=on_chunks,
            on_drop=dropped,
            note=note,
        )
        discovery = Discovery(
            self.pull,
            destination.manifest,
            node.record,
            client=node.client,
            registry=node.registry if resolved.watched else None,
            peers=[control for name, control in resolved.controls if name == control],
            transports=self._transports,
        )
        finding = asyncio.create_task(discovery.run(), name=f"discovery for {self._name}")
        try:
            await self._wait(destination, discovery, over, finding)
        finally:
            finding.cancel()
            await asyncio.gather(finding, return_exceptions=True)
            await asyncio.to_thread(self.pull.close)
        if self.pull.error is not None:
            raise self.pull.error

    async def _wait(
        self,
        destination: FileDestination | MemoryDestination,
        discovery: Discovery,
        over: asyncio.Event,
        finding: asyncio.Task[None],
    ) -> None:
        total = destination.manifest.size
        at_first = sum(destination.manifest.chunk(c).length for c in destination.verified)
        hopeless_since: float | None = None
        told = 0.0
        while not self.pull.finished:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(over.wait(), EVENT_SECONDS)
            over.clear()
            self.pull.tick()
            now = time.monotonic()
            if finding.done():
                finding.result()
            if not self.pull.stuck:
                hopeless_since = None
            elif hopeless_since is None:
                hopeless_since = now
            elif now - hopeless_since > (NO_SOURCE_SECONDS if discovery.candidates else NO_HOLDER_SECONDS):
                raise self._hopeless(discovery)
            if now - told >= EVENT_SECONDS:
                told = now
                done = at_first + self.pull.bytes_pulled
                self._emit({"event": "progress", "done": done, "total": total, "peers": self.pull.active})

    def _transports(self, peer: PeerAddress) -> tuple[str, ...]:
        """The transports to try for a peer, the best first."""
        usable = []
        for name in TRANSPORTS[self._transport]:
            why_not = self._node.engine.transport(name).usable(peer)
            if why_not:
                self._unusable = self._unusable or why_not
            else:
                usable.append(name)
        return tuple(usable)

    def _hopeless(self, discovery: Discovery) -> MooncakeError:
        fault = self.pull.last_fault or discovery.last_fault
        if isinstance(fault, (ChunkMismatch, SecretRefused)):
            return fault
        if isinstance(fault, TransportUnavailable) and self._transport != "auto":
            return fault
        if self._unusable and self._transport != "auto" and fault is None:
            return TransportUnavailable(transport=self._transport, detail=self._unusable)
        return NoLivePeer(name=self._name, detail=str(fault) if fault else "nobody who is alive holds it")


def _copy(local: LocalChunks, chunk: Chunk, destination: FileDestination, scratch: memoryview) -> bool:
    """Copy one chunk from another place on this node; False where it is not there any more."""
    sink = destination.sink(range(chunk.number, chunk.number + 1), scratch)
    try:
        local.read(chunk, sink)
    except (Mismatch, MooncakeError) as error:
        log.info("chunk %d is not reused: %s", chunk.number, error)
        return False
    finally:
        sink.close()
    return True


def _nobody_listens(run: range) -> None:
    """What ``--no-seed`` does with news of verified chunks."""
