"""The node: everything that one member of the cluster does, whether an agent's process or a training job holds it.

It owns the parts and their order of starting and stopping, and offers the operations that the control plane and the
Python API call: register, get, list, info, unregister, verify, status. All of it runs on one event loop; what blocks
runs in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from engine._version import __version__
from engine.errors import MooncakeError
from engine.net import sockets
from engine.net.rate import RateLimit
from engine.serving.segment_server import SegmentServer
from p2pstore.cluster.membership import Membership
from p2pstore.cluster.peer_client import PeerClient
from p2pstore.cluster.records import NodeRecord, ObjectRecord, ReplicaRecord
from p2pstore.cluster.registry import Registry, new_object, registered
from p2pstore.cluster.wrong_bytes import Suspects
from p2pstore.errors import (
    ListenRefused,
    MetadataRefused,
    MetadataUnavailable,
    NodeNameTaken,
    NotHeld,
    ObjectExists,
    ObjectNotFound,
    PathNotFound,
)
from p2pstore.holding.catalog import Catalog, Holding
from p2pstore.holding.holdings import Holdings
from p2pstore.holding.verify import verify_holding
from p2pstore.info import describe
from p2pstore.metadata.store import LeaseLost, MetadataStore
from p2pstore.node_options import DEFAULT_PORT, NodeOptions
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.names import check_node_name, check_object_name
from p2pstore.objects.source import hash_tree, scan
from p2pstore.peers.peer_server import PeerServer
from p2pstore.pull.get import Get, GetRequest, GetResult
from p2pstore.pull.run import Emit

log = logging.getLogger(__name__)


MAX_LISTING = 1000
"""Objects in one page of a listing."""

NAMESAKE_SECONDS = 2.0
"""How long a node that had our name is waited for, before it counts as dead."""

CLOSE_SECONDS = 2.0
"""For telling the metadata server that this node leaves; its lease runs out all the same."""

T = TypeVar("T")


class Node:
    """A running node. Make one with ``await Node.start(...)``, end it with ``await node.close()``."""

    def __init__(self, options: NodeOptions, store: MetadataStore) -> None:
        self.name = check_node_name(options.name)
        self.options = options
        self.connections = options.connections
        self.started = time.time()
        self.gets = 0
        self.upload_limit = RateLimit(options.upload_limit)
        self.download_limit = RateLimit(options.download_limit)
        self.suspects = Suspects()
        self.registry = Registry(store, self.name)
        self.engine: SegmentServer
        self.client: PeerClient
        self.holdings: Holdings
        self.record: NodeRecord
        self.membership: Membership
        self._server: PeerServer
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = contextlib.AsyncExitStack()

    @classmethod
    async def start(cls, options: NodeOptions, store: MetadataStore) -> Node:
        """Start every part, serve what the catalog holds, and join the cluster.

        Raises ``ListenRefused``, ``NodeNameTaken``, ``UsageError`` (a port is taken), ``MetadataUnavailable`` or
        ``MetadataRefused``.
        """
        node = cls(options, store)
        try:
            await node._start()
        except BaseException:
            await node.close()
            raise
        return node

    async def _start(self) -> None:
        options = self.options
        loopback = sockets.is_loopback(options.host)
        if not loopback and options.secret is None and not options.insecure:
            raise ListenRefused(address=options.host)
        port = options.port or (0 if loopback else DEFAULT_PORT)
        self.engine = SegmentServer(
            options.host,
            advertise=options.advertise or None,
            local_socket=options.local_socket,
            rpc_port=port + 1 if port else 0,
            data_port=port + 2 if port else 0,
            publish_buffers=options.secret is None,
            upload_limit=self.upload_limit,
            rdma=False if options.rdma_devices == "none" else options.rdma_devices,
        )
        if self.engine.rdma_reason:
            log.info("RDMA is not used: %s", self.engine.rdma_reason)
        self._closing.push_async_callback(asyncio.to_thread, self.engine.close)
        self.client = PeerClient(options.secret)
        self._closing.push_async_callback(self.client.close)
        catalog = Catalog(options.state / "catalog.db" if options.state else Path(":memory:"))
        self._closing.callback(catalog.close)
        self.holdings = Holdings(self.engine, catalog, self._source_changed)
        self._server = PeerServer(self, options.secret)
        self._closing.push_async_callback(self._server.close)
        control_port = await self._server.start(options.host, port)
        self.record = self._own_record(control_port)
        self.membership = Membership(self.registry, self.record, options.ttl, self._republish)
        await self._claim_name()
        await self.holdings.restore()
        await self.membership.join()
        self.spawn(self.membership.keep())
        self.spawn(self.holdings.watch())

    async def _claim_name(self) -> None:
        """Raise ``NodeNameTaken`` when another node of our name answers. A dead one's record is taken over."""
        before = (await self.registry.nodes([self.name])).get(self.name)
        if before is None or before.control == self.record.control:
            return
        try:
            found = await asyncio.wait_for(self.client.node(before.control), NAMESAKE_SECONDS)
        except (MooncakeError, asyncio.TimeoutError):
            return
        if found.node == self.name and found.started != self.started:
            raise NodeNameTaken(node=self.name, address=before.control)

    def _own_record(self, control_port: int) -> NodeRecord:
        me = self.engine.address_of_self()
        return NodeRecord(
            node=self.name,
            control=sockets.join(self.engine.host, control_port),
            segment=me.segment,
            data_port=me.data_port,
            host_id=me.host_id,
            local_socket=me.local_socket,
            zone=self.options.zone,
            version=__version__,
            started=self.started,
            rdma=me.rdma,
        )

    async def close(self) -> None:
        """Leave the cluster and stop every part; twice is harmless."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if hasattr(self, "membership"):
            with contextlib.suppress(MooncakeError, asyncio.TimeoutError):
                await asyncio.wait_for(self.membership.leave(), CLOSE_SECONDS)
        await self._closing.aclose()
        await self.registry.store.close()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something in the background until it ends or the node closes."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a background task failed", exc_info=task.exception())

    # Operations

    async def register(
        self,
        path: Path,
        name: str,
        *,
        hash_name: str,
        chunk_size: int = 0,
        force: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Hash the file or directory at ``path`` and serve it under ``name``; nothing is copied.

        ``progress(done, total)`` is called in bytes, from any thread. Raises ``BadName``, ``PathNotFound``,
        ``BadSource``, ``SourceChanged``, ``StorageError``, ``ObjectExists`` or ``MetadataUnavailable``.
        """
        began = time.monotonic()
        check_object_name(name)
        tree = await asyncio.to_thread(scan, path)
        known = await self.registry.find(name)
        if known and known.size != tree.size and not force and not await self.registry.dead(known):
            raise ObjectExists(name=name)  # before hashing a terabyte in vain
        cancelled = threading.Event()
        done = 0

        def add(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, tree.size)

        try:
            manifest = await asyncio.to_thread(
                hash_tree, tree, hash_name=hash_name, chunk_size=chunk_size, progress=add, cancelled=cancelled
            )
        except asyncio.CancelledError:
            cancelled.set()
            raise
        lease = self.registry.lease
        record = await self.publish(name, manifest, force=force)
        await self.replace([(Holding(record, "gold", path, tree.files), manifest)], lease)
        return {**registered(record, manifest), "seconds": round(time.monotonic() - began, 6)}

    async def publish(self, name: str, manifest: Manifest, *, force: bool) -> ObjectRecord:
        """Give the manifest a name in the metadata store, with this node as its gold replica."""
        record = new_object(name, self.name, manifest)
        return await self._leased(lambda: self.registry.publish(record, force=force))

    async def publish_all(
        self, objects: Sequence[tuple[str, Manifest]], *, force: bool
    ) -> list[ObjectRecord | ObjectExists]:
        """As ``publish``, for many; see ``Registry.publish_all``."""
        wanted = [new_object(name, self.name, manifest) for name, manifest in objects]
        return await self._leased(lambda: self.registry.publish_all(wanted, force=force))

    async def replace(self, published: Sequence[tuple[Holding, Manifest]], lease: int) -> None:
        """Hold what was just published; give up what lay at its places, and other content under its names.

        The publication said that this node has it. That is said again only where ``lease``, the node's at the time, was
        lost since: whoever took the new one did not know of these holdings yet.
        """
        for holding, _ in published:
            for before in self.holdings.displaced_by(holding):
                await self._withdraw(before)
        self.holdings.add_all(published)
        if self.registry.lease != lease:
            for _, manifest in published:
                await self.announce(manifest.digest, ReplicaRecord(self.name, "complete", "gold"))
        for holding, manifest in published:
            for old in self.holdings.named(holding.name):
                if old.digest != manifest.digest:
                    await self._withdraw(old)

    async def hold(self, holding: Holding, manifest: Manifest, *, known: bool = True) -> None:
        """Serve a whole copy from now on, and say so; what lay at the same place before is given up.

        ``known`` says whether its name came from the metadata store; one that came from a peer is made known there.
        """
        for before in self.holdings.displaced_by(holding):
            await self._withdraw(before)
        replica = self.holdings.add(holding, manifest)
        record = ReplicaRecord(self.name, "complete", replica.role)
        if known:
            await self.announce(manifest.digest, record)
        else:
            await self._say(lambda: self.registry.republish([(holding.record, record)]))

    async def announce(self, digest: str, replica: ReplicaRecord) -> None:
        """Say that this node has part or all of an object; now, or when the metadata server is back."""
        await self._say(lambda: self.registry.announce(digest, replica))

    async def _say(self, write: Callable[[], Awaitable[object]]) -> None:
        try:
            await self._leased(write)
        except (MooncakeError, LeaseLost) as error:
            log.warning("%s; it is said again when the metadata server is back", error)
            self.membership.lost()

    async def get(self, request: GetRequest, emit: Emit) -> GetResult:
        """See ``p2pstore.pull.get``."""
        self.gets += 1
        try:
            return await Get(self, request, emit).run()
        finally:
            self.gets -= 1

    async def listing(self, prefix: str, *, limit: int, after: str) -> dict[str, Any]:
        """One page of the objects whose names begin with ``prefix``."""
        found, following = await self.registry.listing(
            prefix, limit=min(limit or MAX_LISTING, MAX_LISTING), after=after
        )
        objects = []
        for entry in found:
            shown = asdict(entry.record)
            objects.append({**shown, "complete": entry.complete, "partial": entry.partial})
        return {"objects": objects, "next": following or None}

    async def info(self, name: str) -> dict[str, Any]:
        """Everything about one object. Raises ``ObjectNotFound``."""
        return await describe(self, check_object_name(name))

    async def unregister(self, name: str) -> dict[str, Any]:
        """Withdraw what this node has under ``name``. Raises ``NotHeld`` or ``ObjectNotFound``; deletes no file."""
        mine = self.holdings.named(check_object_name(name))
        if not mine:
            if await self.registry.find(name) is None:
                raise ObjectNotFound(name=name)
            raise NotHeld(name=name)
        removed = False
        for holding in mine:
            removed = await self._withdraw(holding) or removed
        withdrawn = [{"role": h.role, "path": h.place} for h in mine]
        return {"name": name, "manifest": mine[0].digest, "withdrawn": withdrawn, "removed": removed}

    async def verify(self, target: str, progress: Callable[[int, int], None]) -> dict[str, Any]:
        """Hash again what this node holds under a name or at an absolute path. What is wrong is withdrawn."""
        if os.path.isabs(target):
            holding = self.holdings.at(Path(target))
            if holding is None:
                there = await asyncio.to_thread(os.path.lexists, target)
                raise NotHeld(name=target) if there else PathNotFound(path=target)
        else:
            mine = self.holdings.named(check_object_name(target))
            if not mine:
                known = await self.registry.find(target)
                raise NotHeld(name=target) if known else ObjectNotFound(name=target)
            holding = mine[0]
        manifest = self.holdings.manifest(holding.digest)
        assert manifest is not None  # noqa: S101 - a holding has its manifest
        result = await verify_holding(holding, manifest, progress)
        if not result["ok"]:
            log.warning("%s is withdrawn: %s has wrong bytes", holding.name, holding.place)
            await self._withdraw(holding)
        return result

    async def _withdraw(self, holding: Holding) -> bool:
        """Serve a holding no more; True if its name went from the metadata store with it."""
        self.holdings.remove(holding)
        return await self._take_back(holding)

    async def _take_back(self, holding: Holding) -> bool:
        """Say that a holding is served no more, unless there is another copy of it; True if its name went with it.

        When that cannot be said now, the lease that the announcement hangs on is given up: it runs out, and what this
        node still holds is announced again under a new one.
        """
        if any(other.digest == holding.digest for other in self.holdings.named(holding.name)):
            return False
        try:
            if holding.digest in self.holdings.replicas:
                return await self.registry.drop_name(holding.record)
            return bool(await self.registry.withdraw(holding.digest, [holding.name]))
        except (MetadataUnavailable, MetadataRefused) as error:
            log.warning("%s; what was withdrawn stays listed until its lease has run out", error)
            self.membership.lost()
            return False

    async def withdraw_quietly(self, digest: str) -> None:
        """Take back the announcement of a partial replica; its lease would do so in time."""
        if digest not in self.holdings.replicas:
            with contextlib.suppress(MooncakeError):
                await self.registry.withdraw(digest, [])

    async def _source_changed(self, holding: Holding, reason: str) -> None:
        await self._take_back(holding)
        log.info("withdrew %s: %s", holding.name, reason)

    async def _republish(self) -> None:
        """Say again all that this node has."""
        replicas = self.holdings.replicas
        whole = [(h.record, ReplicaRecord(self.name, "complete", replicas[h.digest].role)) for h in self.holdings]
        for name in await self.registry.republish(whole):
            log.warning("%s meanwhile stands for other content; this node still serves the old", name)
        for digest, replica in list(replicas.items()):
            if not replica.have.full:
                await self.registry.announce(digest, ReplicaRecord(self.name, "partial", replica.role))

    async def _leased(self, write: Callable[[], Awaitable[T]]) -> T:
        """Do a leased write; join again first when the lease turns out to be gone."""
        try:
            return await write()
        except LeaseLost:
            await self.membership.join()
            return await write()

    def status(self) -> dict[str, Any]:
        """What this node is and does."""
        replicas = self.holdings.replicas.values()
        return {
            "node": self.name,
            "version": __version__,
            "metadata": self.registry.store.url,
            "metadata_ok": self.membership.ok,
            "control": self.record.control,
            "rpc": self.record.segment,
            "data": sockets.join(self.engine.host, self.engine.data_port),
            "listen": self.options.host,
            "uptime": round(time.time() - self.started, 3),
            "objects": self.holdings.names,
            "serving_bytes": sum(r.manifest.size for r in replicas if r.have.full),
            "bytes_sent": self.engine.bytes_sent,
            "rdma": self.record.rdma,
            "rdma_reason": self.engine.rdma_reason,
            "rdma_bytes_granted": self.engine.bytes_granted_rdma,
            "rdma_sessions": self.engine.rdma_sessions,
            "gets": self.gets,
            "upload_limit": self.upload_limit.rate,
            "download_limit": self.download_limit.rate,
        }
